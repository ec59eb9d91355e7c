import numpy as np
from scipy import stats

from site_node.privacy_audit.canaries import make_canaries, make_patients, with_canaries
from site_node.privacy_audit.reference_studies import small_study
from tests.site_node.training.examples import make_patients as patients_with_images

STUDY = small_study(8.0)


def test_the_same_seed_gives_the_same_canaries_and_coins() -> None:
    one, other = make_canaries(STUDY, 50, 3), make_canaries(STUDY, 50, 3)
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.included, other.included)
    assert not np.array_equal(one.included, make_canaries(STUDY, 50, 4).included)


def test_coins_are_fair_and_know_neither_label_nor_image() -> None:
    canaries = make_canaries(STUDY, 4000, 11)
    assert stats.binomtest(int(canaries.included.sum()), 4000).pvalue > 1e-3
    table = [[np.sum((canaries.included == c) & (canaries.labels == y)) for y in (0, 1)] for c in (False, True)]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    firsts = canaries.images[:, 0, 0, 0].astype(float)
    assert stats.ttest_ind(firsts[canaries.included], firsts[~canaries.included]).pvalue > 1e-3


def test_the_coins_do_not_depend_on_the_size_of_the_images() -> None:
    larger = STUDY.model_copy(update={"preprocessing": STUDY.preprocessing.model_copy(update={"size": [32, 32]})})
    assert np.array_equal(make_canaries(STUDY, 30, 5).included, make_canaries(larger, 30, 5).included)


def test_included_canaries_stand_after_the_patients_whose_images_stay_theirs() -> None:
    patients, canaries = patients_with_images([2, 1, 3]), make_canaries(STUDY, 8, 1)
    together = with_canaries(patients, canaries)
    included = int(canaries.included.sum())
    assert together.patients == 3 + included
    assert [len(together.images_of(n)) for n in range(together.patients)] == [2, 1, 3] + [1] * included
    assert np.array_equal(together.pixels_of(together.images_of(2)), patients.pixels_of(patients.images_of(2)))
    assert np.array_equal(together.pixels_of(np.arange(6, 6 + included)), canaries.images[canaries.included])
    assert np.array_equal(together.targets[6:], canaries.labels[canaries.included])


def test_made_up_patients_have_an_image_each() -> None:
    patients = make_patients(STUDY, 20, 0)
    assert patients.patients == 20
    images = patients.pixels_of(np.arange(20)).numpy()
    assert np.allclose(images.mean((1, 2, 3)), 0, atol=1e-3)
    bright = images[:, 0, :8].mean((1, 2))
    assert bright[patients.labels == 1].min() > bright[patients.labels == 0].max()
