"""Training and judging on a table: the same steps, draws and clipping as on images, and Cox's loss for survival."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from protocol.metrics import summarise
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from site_node.candidate import Candidate
from site_node.cohort.table_cohort import build_table_cohort
from site_node.errors import CohortError, UnknownNetworkError
from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy.layerwise import covers
from site_node.privacy.per_image import HeldGradients
from site_node.settings import SitePaths, SiteSettings
from site_node.training.evaluation import evaluate
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort
from site_node.training.networks import build_network, images_at_once, initial_weights, input_shape, threads_worth
from site_node.training.objectives.binary import cross_entropy
from site_node.training.objectives.choice import loss_of
from site_node.training.patients import draw_batch, prepare_cohort
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.survival import cox_loss, events_of, survival_target
from tests.site_node.cohort.tables import SURVIVAL_HEADER, many_rows, survival_study, table_study, write_table
from tests.site_node.training.examples import make_noise
from tests.site_node.training.test_job import base_blob, run

KEY = b"k" * 32
DIGEST = "sha256:" + "5" * 64


def prepared(folder: Path, study: StudySpec, split: Any = "train") -> PreparedPatients:
    path = write_table(folder / "table.csv", many_rows(60), SURVIVAL_HEADER)
    return prepare_cohort(study, build_table_cohort(path, study, KEY), [split], None)[split]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_networks_of_tables_give_one_logit_a_row_and_private_gradients_know_their_layers(name: str) -> None:
    study = table_study(network={"name": name})
    network = build_network(study)
    assert input_shape(study) == (2,)
    assert network(torch.randn(3, 2)).shape == (3, 1)
    assert covers(network)
    assert threads_worth(study, 8) == 1
    assert images_at_once(study) > 1000


def test_the_linear_network_has_one_weight_a_column_and_an_offset() -> None:
    assert {name: array.shape for name, array in initial_weights(table_study()).items()} == {
        "bias": (1,), "weight": (1, 2)
    }  # fmt: skip


def test_hidden_layers_are_the_studys() -> None:
    weights = initial_weights(table_study(network={"name": "mlp", "arguments": {"hidden": [5, 3]}}))
    assert sorted(array.shape for array in weights.values() if array.ndim == 2) == [(1, 3), (3, 5), (5, 2)]


def test_a_network_of_images_is_refused_for_a_table_and_the_other_way_round() -> None:
    with pytest.raises(UnknownNetworkError, match=r"reads images, and the study has rows\. Choose one of: linear, mlp"):
        build_network(table_study(network={"name": "convnet"}))
    plain = table_study().model_copy(update={"kind": "classification"})
    with pytest.raises(UnknownNetworkError, match="reads rows"):
        build_network(plain)
    with pytest.raises(UnknownNetworkError, match="Choose one of: linear, mlp"):
        build_network(table_study(network={"name": "forest"}))


def test_a_step_draws_patients_with_their_rows_unvaried(tmp_path: Path) -> None:
    study = table_study(training={"sampling_rate": 1.0})
    patients = prepared(tmp_path, study)
    batch = draw_batch(study, patients, make_noise(), torch.device("cpu"))
    assert batch.patients == patients.patients == 40
    assert torch.equal(batch.images, patients.pixels_of(np.arange(40)))


def test_clipped_sums_are_those_of_gradients_taken_row_by_row(tmp_path: Path) -> None:
    study = table_study(network={"name": "mlp"}, training={"sampling_rate": 1.0})
    network = build_network(study)
    batch = draw_batch(study, prepared(tmp_path, study), make_noise(), torch.device("cpu"))
    held = HeldGradients.of(network, cross_entropy, batch)
    expected = torch.zeros(sum(p.numel() for p in network.parameters()), dtype=torch.float64)
    held.add_weighted_sum((0.1 / held.squares.sqrt()).clamp(max=1.0), expected)
    got = clipped_sum_of_batch(network, loss_of(study), batch, 0.1, images_at_once=7)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert float(got.norm()) <= 0.1 * batch.patients


def test_a_frozen_cohort_keeps_its_rows_whatever_becomes_of_the_table(tmp_path: Path) -> None:
    study = survival_study()
    path = write_table(tmp_path / "table.csv", many_rows(12), SURVIVAL_HEADER)
    cohort = build_table_cohort(path, study, KEY)
    freeze_cohort(tmp_path / "frozen", DIGEST, cohort)
    path.unlink()
    again = frozen_cohort(tmp_path / "frozen", DIGEST)
    assert again == cohort
    assert again.values is not None
    assert cohort.values is not None
    np.testing.assert_array_equal(again.values, cohort.values)


@pytest.mark.parametrize("harm", ["gone", "shorter", "another's"])
def test_a_frozen_cohort_without_its_rows_is_damaged(tmp_path: Path, harm: str) -> None:
    cohort = build_table_cohort(write_table(tmp_path / "t.csv", many_rows(12), SURVIVAL_HEADER), table_study(), KEY)
    freeze_cohort(tmp_path, DIGEST, cohort)
    (kept,) = tmp_path.glob("*.npy")
    if harm == "gone":
        kept.unlink()
    else:
        np.save(kept, np.zeros((3 if harm == "shorter" else 12, 2), np.float32))
    with pytest.raises(CohortError, match="damaged"):
        frozen_cohort(tmp_path, DIGEST)


def test_survival_targets_carry_time_and_event_also_at_time_0() -> None:
    targets = np.array([survival_target(t, event=e) for t, e in [(3, True), (3, False), (0, True), (0, False)]])
    assert events_of(targets.astype(np.float32)).tolist() == [True, False, True, False]
    assert np.abs(targets).tolist() == [3, 3, 0, 0]


def test_coxs_loss_of_three_patients_by_hand() -> None:
    hazards, targets = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, -2.0, 3.0])
    # at time 1 three are at risk, at time 3 the last one; who left at time 2 has no term
    assert torch.allclose(cox_loss(hazards, targets), torch.tensor([3.0, 1.0, 1.0]).log())


@given(st.lists(st.tuples(st.floats(-3, 3), st.integers(0, 4), st.booleans()), max_size=9))
def test_coxs_loss_is_its_definition(patients: list[tuple[float, int, bool]]) -> None:
    hazards = torch.tensor([hazard for hazard, _, _ in patients], dtype=torch.float64)
    targets = torch.tensor([survival_target(time, event=event) for _, time, event in patients], dtype=torch.float64)
    expected = [
        torch.logsumexp(hazards[targets.abs() >= time], 0) - hazard if event else torch.tensor(0.0)
        for hazard, (_, time, event) in zip(hazards, patients, strict=True)
    ]
    assert torch.allclose(cox_loss(hazards, targets), torch.tensor(expected, dtype=torch.float64))


def test_held_out_pairs_are_ordered_by_the_networks_output(tmp_path: Path) -> None:
    study = survival_study()
    held_out: dict[HeldOutSplit, PreparedPatients] = {"test": prepared(tmp_path, study, "test")}
    weights = {"weight": np.array([[0.0, 1.0]], np.float32), "bias": np.zeros(1, np.float32)}
    counts = evaluate(study, weights, held_out, make_noise())["test"]
    assert (counts.patients, counts.events) == (20, 10)
    assert counts.concordant > 0.6 * counts.comparable  # the marker tells who dies, and soon
    turned = evaluate(study, {**weights, "weight": -weights["weight"]}, held_out, make_noise())["test"]
    assert turned.concordant == counts.comparable - counts.concordant - counts.tied


def test_one_patients_risk_that_is_not_finite_fails_nothing(tmp_path: Path) -> None:
    study = survival_study()
    weights = {"weight": np.array([[np.inf, 0.0]], np.float32), "bias": np.zeros(1, np.float32)}
    assert evaluate(study, weights, {"test": prepared(tmp_path, study, "test")}, make_noise())["test"].patients == 20


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(b"n" * 32)
    table = write_table(tmp_path / "table.csv", many_rows(60), SURVIVAL_HEADER)
    return SiteSettings("a", "http://hub", (), tmp_path / "labels.csv", "", paths, Path("policy.yaml"), 1, table=table)


def evaluated(site: SiteSettings, study: StudySpec) -> Candidate:
    return run(site, "evaluate", study, base_blob=base_blob(site, study))


def test_a_private_study_of_a_table_goes_through_the_job_like_one_of_images(site: SiteSettings) -> None:
    study = table_study(privacy={"epsilon": 8.0, "delta": 1e-4}, training={"learning_rate": 0.5})
    with capture_logs() as logs:
        update = run(
            site, "train", study, base_blob=base_blob(site, study), noise_multiplier=noise_multiplier_of(study), round=1
        )
        judged = evaluated(site, study)
    assert (update.kind, judged.kind) == ("update", "evaluation")
    assert judged.histograms is not None
    assert judged.pairs is None
    assert summarise(judged.histograms["test"]).patients == 20
    assert "PAT-" not in json.dumps(logs, default=str)


def test_a_survival_study_hands_over_pairs_and_no_histogram(site: SiteSettings) -> None:
    judged = evaluated(site, survival_study())
    assert judged.histograms is None
    assert judged.pairs is not None
    assert judged.pairs["test"].patients == 20


def test_a_training_that_is_run_again_gives_the_same_update(site: SiteSettings) -> None:
    study = survival_study(training={"learning_rate": 0.1})
    updates = [
        run(site, "train", study, task_id=task, base_blob=base_blob(site, study), round=1).payload_digest
        for task in ("first", "again")
    ]
    assert updates[0] is not None
    assert updates[0] == updates[1]
