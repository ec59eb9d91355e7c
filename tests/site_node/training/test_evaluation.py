from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from protocol.metrics import MASKED_BINS, NOISED_BINS, summarise
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.errors import NoHeldOutPatientsError
from site_node.training.evaluation import evaluate, outputs_of
from site_node.training.networks import build_network, initial_weights, load_into
from site_node.training.objectives.binary import patient_scores
from tests.site_node.training.examples import make_noise, make_patients, make_study, pixels

PATIENTS = make_patients([1, 3, 2, 1, 4])
CPU = torch.device("cpu")


def with_terms(part: str, **terms: Any) -> StudySpec:
    document = make_study().model_dump(mode="json", by_alias=True)
    document[part] |= terms
    return parse_study(document)


@pytest.mark.parametrize(("rule", "join"), [("mean", np.mean), ("max", np.max)])
def test_a_patients_score_is_made_of_the_images_scores(rule: str, join: Any) -> None:
    study = with_terms("label", patient_score=rule)
    network = build_network(study).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels(PATIENTS).astype(np.float32))).squeeze(1)
    images = torch.sigmoid(logits).numpy()
    expected = [join(images[PATIENTS.images_of(patient)]) for patient in range(PATIENTS.patients)]
    assert patient_scores(study, outputs_of(network, PATIENTS, CPU), PATIENTS) == pytest.approx(expected, abs=1e-6)


def test_a_histogram_counts_each_patient_once() -> None:
    study = make_study()
    histograms = evaluate(study, initial_weights(study), {"validation": PATIENTS, "test": PATIENTS}, make_noise())
    assert set(histograms) == {"validation", "test"}
    metrics = summarise(histograms["test"])
    assert (metrics.patients, metrics.positives) == (5, 2)


def test_noised_histograms_are_coarse_and_every_bin_is_noised() -> None:
    study = with_terms("evaluation", noise_epsilon=0.5)
    histogram = evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise())["test"]
    assert histogram.bins == NOISED_BINS
    negative, positive = histogram.dense()
    noisy = np.concatenate([negative, positive])
    assert (noisy != 0).mean() > 0.5
    assert (noisy < 0).any()
    again = evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise())["test"]
    other = evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise(task="other"))["test"]
    assert histogram == again != other


@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_under_masks_a_split_without_patients_is_counted_too_with_zeros_or_noise_alone(epsilon: float | None) -> None:
    study = with_terms("evaluation", noise_epsilon=epsilon)
    terms = {"method": "masking", "maximum_sites": 5, "maximum_weight": 100}
    study = study.model_copy(update={"secure_aggregation": study.secure_aggregation.model_copy(update=terms)})
    found = evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise())
    assert set(found) == {"validation", "test"}
    assert {histograms.bins for histograms in found.values()} == {MASKED_BINS if epsilon is None else NOISED_BINS}
    nobody = np.concatenate(found["validation"].dense())
    assert bool(nobody.any()) == (epsilon is not None)
    assert found["validation"].noise_variance == found["test"].noise_variance


@pytest.mark.parametrize("held_out", [{"test": PATIENTS}, {}], ids=["of one split", "of both"])
def test_noised_a_split_whose_last_patient_opted_out_is_counted_as_noise_alone(held_out: Any) -> None:
    study = with_terms("evaluation", noise_epsilon=0.5)
    found = evaluate(study, initial_weights(study), held_out, make_noise(), ["validation", "test"])
    assert set(found) == {"validation", "test"}
    assert {(one.bins, one.noise_variance) for one in found.values()} == {(NOISED_BINS, found["test"].noise_variance)}
    assert np.concatenate(found["validation"].dense()).any()
    assert set(evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise(), ["test"])) == {"test"}


def test_nobody_held_out_is_refused() -> None:
    with pytest.raises(NoHeldOutPatientsError):
        evaluate(make_study(), initial_weights(make_study()), {}, make_noise())


def test_un_noised_the_last_patient_of_a_split_who_opts_out_is_seen() -> None:
    """Zeros would tell it as plainly: they are what the threat model says un-noised counts tell."""
    study = make_study()
    assert set(evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise(), ["validation", "test"])) == {
        "test"
    }
    with pytest.raises(NoHeldOutPatientsError):
        evaluate(study, initial_weights(study), {}, make_noise(), ["test"])


def asking_about_bright_images(study: StudySpec) -> Weights:
    """Return finite weights under which an image as bright as BRIGHT overflows and the others do not."""
    base = initial_weights(study)
    first = next(iter(base))
    return base | {first: base[first] * np.float32(1e35)}


BRIGHT = 6e4
TARGET = 2
WITH_TARGET = replace(PATIENTS, images=pixels(PATIENTS).copy())
pixels(WITH_TARGET)[PATIENTS.images_of(TARGET)] = BRIGHT


@pytest.mark.parametrize("rule", ["mean", "max"])
@pytest.mark.parametrize("noise_epsilon", [0.5, None])
def test_weights_that_ask_about_one_patient_get_the_same_kind_of_answer_from_neighbours(
    rule: str, noise_epsilon: float | None
) -> None:
    study = parse_study(
        make_study(normalisation="none").model_dump(mode="json", by_alias=True)
        | {"label": {"classes": ["no", "yes"], "patient_score": rule}, "evaluation": {"noise_epsilon": noise_epsilon}}
    )
    weights = asking_about_bright_images(study)
    assert all(np.isfinite(array).all() for array in weights.values())
    network = build_network(study).eval()
    load_into(network, weights)
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels(WITH_TARGET).astype(np.float32))).squeeze(1)
    asked = [bool(torch.isnan(logits[WITH_TARGET.images_of(p)]).any()) for p in range(WITH_TARGET.patients)]
    assert asked == [patient == TARGET for patient in range(WITH_TARGET.patients)]

    there, absent = (evaluate(study, weights, {"test": p}, make_noise())["test"] for p in (WITH_TARGET, PATIENTS))
    assert there.bins == absent.bins
    moved = np.abs(np.subtract(there.dense(), absent.dense()))
    assert moved.sum() <= 2, "one patient moves from one bin to another, under the same noise"


def test_a_patient_without_a_finite_score_counts_as_undecided() -> None:
    study = make_study(normalisation="none")
    network = build_network(study).eval()
    load_into(network, asking_about_bright_images(study))
    scores = patient_scores(study, outputs_of(network, WITH_TARGET, CPU), WITH_TARGET)
    assert scores[TARGET] == 0.5
    assert np.isfinite(scores).all()


def test_a_version_that_diverged_for_everybody_is_no_better_than_chance() -> None:
    weights = {name: np.full_like(array, np.nan) for name, array in initial_weights(make_study()).items()}
    histograms = evaluate(make_study(), weights, {"test": PATIENTS}, make_noise())["test"]
    assert (summarise(histograms).patients, summarise(histograms).auc) == (PATIENTS.patients, 0.5)
