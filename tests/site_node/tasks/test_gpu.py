"""A worker is kept to one GPU by what its jobs are shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from site_node.cli import app
from site_node.errors import SettingsError
from site_node.settings import SitePaths
from site_node.tasks.gpu import ORDER, VISIBLE, check_gpu, gpu_named, gpus_seen_by_jobs, leave_free, narrow
from tests.fakes.ordered_site import make_site


@pytest.mark.parametrize(
    ("number", "visible", "name"),
    [(0, None, "0"), (3, None, "3"), (0, "2,3", "2"), (1, "2,3", "3"), (1, " GPU-8f3a , MIG-77 ", "MIG-77")],
)
def test_a_gpu_is_counted_among_those_that_are_shown(number: int, visible: str | None, name: str) -> None:
    assert gpu_named(number, visible) == name


@pytest.mark.parametrize(("number", "visible"), [(0, ""), (0, "-1"), (2, "2,3"), (1, "5,-1,6")])
def test_a_gpu_that_is_not_shown_is_refused(number: int, visible: str) -> None:
    with pytest.raises(SettingsError, match=f"no GPU {number}"):
        gpu_named(number, visible)


@given(st.lists(st.integers(0, 63), min_size=1, max_size=8, unique=True))
def test_workers_with_different_numbers_never_share_a_gpu(shown: list[int]) -> None:
    visible = ",".join(map(str, shown))
    assert [gpu_named(number, visible) for number in range(len(shown))] == [str(gpu) for gpu in shown]


def test_an_environment_is_narrowed_to_one_and_counts_as_nvidia_smi_does() -> None:
    environment = {VISIBLE: "2,3"}
    narrow(1, environment)
    assert environment == {VISIBLE: "3", ORDER: "PCI_BUS_ID"}
    narrow(0, environment)  # what is narrow already stays so
    assert environment[VISIBLE] == "3"


def test_a_worker_whose_jobs_see_no_gpu_is_refused_with_what_to_do() -> None:
    check_gpu(0, lambda: 1)
    with pytest.raises(SettingsError, match="shows this user no GPU 1") as refused:
        check_gpu(1, lambda: 0)
    assert "nvidia-smi" in str(refused.value)


@pytest.mark.parametrize(
    ("keep", "shown", "visible", "left"),
    [(1, 2, None, "0"), (1, 4, None, "0,1,2"), (2, 3, "5,6,7", "5"), (0, 2, None, None), (1, 0, None, None)],
)
def test_the_last_gpus_are_kept_free(keep: int, shown: int, visible: str | None, left: str | None) -> None:
    environment = {} if visible is None else {VISIBLE: visible}
    leave_free(keep, environment, shown)
    assert environment.get(VISIBLE) == left


@pytest.mark.parametrize(("keep", "shown", "number"), [(1, 1, None), (2, 2, None), (1, 1, 0), (1, 2, 1), (2, 4, 3)])
def test_a_worker_gets_no_gpu_that_is_kept_free(keep: int, shown: int, number: int | None) -> None:
    environment: dict[str, str] = {}
    with pytest.raises(SettingsError, match="keep_gpus_free"):
        leave_free(keep, environment, shown, number)
    assert environment == {}


def test_a_worker_of_one_gpu_that_is_not_kept_free_stays_at_it() -> None:
    environment = {VISIBLE: "2,3"}
    leave_free(1, environment, 2, 0)
    assert environment == {VISIBLE: "2,3"}  # `narrow` names the one


def test_gpus_are_counted_in_a_process_that_sees_what_jobs_see() -> None:
    import torch

    assert gpus_seen_by_jobs() == torch.cuda.device_count()


def test_the_worker_command_refuses_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_site(tmp_path)
    SitePaths(settings.paths.root).hub_key.write_text("enrolled")
    monkeypatch.setattr("site_node.tasks.worker.check_ready", lambda _: None)  # Redis is no matter here
    monkeypatch.setenv(VISIBLE, "0")
    answer = CliRunner().invoke(app, ["worker", str(settings.paths.root), "--gpu", "7"])
    assert answer.exit_code == 1
    assert "no GPU 7" in answer.output
