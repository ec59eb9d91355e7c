import numpy as np
import pytest

from protocol.class_metrics import VALUES_OF_A_SPLIT, class_bins, macro_auc
from protocol.held_out import epsilon_of_each, histograms_of_split
from protocol.held_out_checks import counts_problem, patients_in
from protocol.messages import MAX_MESSAGE_BYTES
from protocol.metrics import ScoreHistograms, summarise
from protocol.privacy_accounting import epsilon_of, held_out_event
from protocol.secure_aggregation.histograms import vector_length
from protocol.secure_messages import MOST_PIECES, WORDS_OF_A_PIECE
from protocol.study import StudySpec, parse_study

BINS = class_bins(3)


def study_of(classes: int = 3, noise: float | None = None, **label: object) -> StudySpec:
    return parse_study(
        {
            "name": "classes",
            "label": {"classes": [f"class {number}" for number in range(classes)], **label},
            "network": {"name": "densenet"},
            "rounds": 2,
            "evaluation": {"noise_epsilon": noise},
            "privacy": {"epsilon": None},
        }
    )


def counted(scores: list[float], labels: list[int], bins: int = BINS) -> ScoreHistograms:
    return ScoreHistograms.from_scores(np.array(scores), np.array(labels, np.int64), bins)


PERFECT = counted([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
HALF = counted([0.1, 0.8, 0.1, 0.8], [0, 0, 1, 1])
NONE = counted([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0])


def test_the_macro_auc_is_the_mean_over_the_classes_that_have_one() -> None:
    found, one, other = macro_auc([PERFECT, HALF, NONE]), summarise(PERFECT), summarise(HALF)
    assert (found.auc, found.classes) == (0.75, 2)
    assert one.auc_low is not None
    assert other.auc_low is not None
    assert found.low == pytest.approx((one.auc_low + other.auc_low) / 2)
    assert macro_auc([NONE]).auc is None


@pytest.mark.parametrize("classes", [2, 3, 8, 9, 16, 33, 64])
def test_counts_of_all_classes_fit_into_a_message_and_under_masks(classes: int) -> None:
    study = study_of(classes, several=True)
    assert class_bins(classes) * classes <= VALUES_OF_A_SPLIT
    assert vector_length(study) <= MOST_PIECES * WORDS_OF_A_PIECE
    assert vector_length(study) % WORDS_OF_A_PIECE == 0
    assert 2 * 4 * vector_length(study) < MAX_MESSAGE_BYTES


@pytest.mark.parametrize("label", [{}, {"several": True}])
def test_all_classes_together_spend_what_one_pair_of_histograms_would(label: dict[str, object]) -> None:
    study = study_of(3, 1.5, **label)
    assert (histograms_of_split(study), epsilon_of_each(study)) == (3, 0.5)
    event = held_out_event(study)
    assert event is not None
    assert (event.noise_multiplier, event.count) == (2.0, 9)  # 3 evaluations of 3 classes
    assert epsilon_of([event], 1e-9) == pytest.approx(4.5, rel=0.01)


class Holder:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


ONE_HOT = [counted([0.1, 0.2, 0.7], labels) for labels in ([1, 0, 0], [0, 1, 0], [0, 0, 1])]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"classes": {"test": ONE_HOT}}, None),
        ({}, "hold nothing"),
        ({"classes": {"test": ONE_HOT}, "histograms": {"test": PERFECT}}, "of another kind"),
        ({"classes": {"train": ONE_HOT}}, "does not name"),
        ({"classes": {"test": ONE_HOT[:2]}}, "another number of classes"),
        ({"classes": {"test": [*ONE_HOT[:2], NONE]}}, "not exactly one class"),
        ({"classes": {"test": [*ONE_HOT[:2], ONE_HOT[1]]}}, None),
        ({"classes": {"test": [*ONE_HOT[:2], counted([0.5], [1], 64)]}}, "another number of bins"),
    ],
)
def test_what_is_wrong_with_counts_of_classes_is_said(fields: dict[str, object], problem: str | None) -> None:
    found = counts_problem(study_of(), Holder(**fields))
    assert found is None if problem is None else problem in str(found)


def test_of_findings_each_may_be_known_of_others() -> None:
    counts = Holder(classes={"test": [PERFECT, counted([0.5], [1]), NONE]})
    assert counts_problem(study_of(several=True), counts) is None
    assert patients_in(study_of(several=True), counts) == 4
    assert "not exactly one class" in str(counts_problem(study_of(), counts))
