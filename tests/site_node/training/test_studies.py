"""The two studies that ship: legal, small, and what their comments promise."""

from pathlib import Path

import pytest
import yaml

from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.study import StudySpec, parse_study
from site_node.training.networks import build_network, threads_worth

ROOT = Path(__file__).parents[3]
BENCHMARK = ROOT / "tests" / "benchmarks" / "studies" / "pneumonia.yaml"
DEMO = ROOT / "compose" / "demo" / "study.yaml"


def read(path: Path, **privacy: float | None) -> StudySpec:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["privacy"] |= privacy
    return parse_study(document)


@pytest.mark.parametrize("path", [BENCHMARK, DEMO], ids=["benchmark", "demo"])
def test_the_noise_fits_the_target(path: Path) -> None:
    study = read(path)
    noise, epsilon = noise_multiplier_of(study), study.privacy.epsilon
    assert noise is not None
    assert epsilon is not None
    event = training_event(study, noise, study.maximum_training_tasks)
    assert 0.98 * epsilon < epsilon_of([event], study.privacy.delta) <= epsilon


@pytest.mark.parametrize("epsilon", [None, 8.0, 3.0])
def test_one_file_serves_every_epsilon(epsilon: float | None) -> None:
    assert read(BENCHMARK, epsilon=epsilon).training == read(BENCHMARK).training


def test_the_benchmarks_network_has_the_parameters_its_comment_states() -> None:
    assert sum(p.numel() for p in build_network(read(BENCHMARK)).parameters()) == 6673
    assert "6,673 parameters" in BENCHMARK.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [BENCHMARK, DEMO], ids=["benchmark", "demo"])
def test_small_networks_get_one_thread(path: Path) -> None:
    assert threads_worth(read(path), 8) == 1


def test_the_demo_learns_in_more_than_five_rounds() -> None:
    assert read(DEMO).rounds >= 5
