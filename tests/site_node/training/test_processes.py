import errno
import ipaddress
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import Reason
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, decode_weights, encode_weights
from site_node.candidate import payload_path, read_candidate
from site_node.cohort.index import index_folder
from site_node.errors import DiskFullError, SettingsError, TrainingProcessLostError
from site_node.orders import WorkOrder, write_order
from site_node.settings import SitePaths, SiteSettings
from site_node.training import job, process_watch
from site_node.training import processes as training_processes
from site_node.training.carriers import Over, SharedMemory
from site_node.training.device import is_lost_device
from site_node.training.job import run_order
from site_node.training.networks import initial_weights
from site_node.training.process_loss import FAILED, WITHOUT_DEVICE
from site_node.training.processes import ALONE, Together, processes_for, take_gpu, training_together
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_batch, make_study

TASK_DIGEST = "sha256:" + "7" * 64
PATIENCE_SECONDS = 60.0
CARRIERS = pytest.mark.parametrize("over", ["shared-memory", "gloo"])


@pytest.fixture(autouse=True)
def _processes_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    hospital = make_hospital(tmp_path / "images", patients=24, size=16)
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(b"n" * 32)
    index_folder([hospital.folder], paths.index)
    return SiteSettings("a", "http://hub", (hospital.folder,), hospital.labels, "", paths, Path("policy.yaml"), 1)


def study_of(epsilon: float | None, **changes: Any) -> StudySpec:
    study = make_study(epsilon=epsilon, local_steps=3, learning_rate=0.5, images_per_patient=2, augmentation="light")
    return parse_study({**study.model_dump(mode="json", by_alias=True), **changes})


def do(settings: SiteSettings, kind: Any, study: StudySpec, task_id: str, **fields: Any) -> None:
    order = WorkOrder(
        kind=kind,
        task_id=task_id,
        task_digest=TASK_DIGEST,
        study=study.model_dump(mode="json", by_alias=True),
        study_digest=study.digest,
        **fields,
    )
    write_order(settings.paths, order)
    run_order(settings, task_id)


def updated(settings: SiteSettings, study: StudySpec, processes: int, over: Over = "shared-memory") -> Weights:
    base = encode_weights(initial_weights(study))
    digest, task_id = digest_of_bytes(base), f"train-{processes}"
    (settings.paths.blobs / hex_of(digest)).write_bytes(base)
    noise = noise_multiplier_of(study)
    with_others = replace(settings, processes=processes, processes_over=over)
    do(with_others, "train", study, task_id, round=1, base_blob=digest, noise_multiplier=noise)
    candidate = read_candidate(settings.paths, task_id)
    assert candidate is not None
    assert candidate.kind == "update", candidate.reason
    return decode_weights(zstandard.ZstdDecompressor().decompress(payload_path(settings.paths, task_id).read_bytes()))


def kept(settings: SiteSettings) -> dict[str, Weights]:
    files = sorted(settings.paths.local_state.rglob("*.safetensors"))
    return {path.parent.name: decode_weights(path) for path in files}


def assert_close(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=2e-6)


PERSONAL = {"personal": {"ditto": 0.5}}


@pytest.mark.parametrize(
    ("epsilon", "changes", "over"),
    [
        (None, {}, "shared-memory"),
        (8.0, {}, "shared-memory"),
        (8.0, PERSONAL, "shared-memory"),
        (None, {}, "gloo"),
        (8.0, PERSONAL, "gloo"),
    ],
    ids=["plain", "private", "private with a personal model", "plain, gloo", "private with a personal model, gloo"],
)
def test_two_processes_train_what_one_does(
    settings: SiteSettings, epsilon: float | None, changes: dict[str, Any], over: Over
) -> None:
    study = study_of(epsilon, **changes)
    do(settings, "cohort", study, "cohort")
    alone = updated(settings, study, 1)
    kept_alone = kept(settings)
    together = updated(settings, study, 2, over)
    assert_close(alone, together)
    assert kept_alone.keys() == kept(settings).keys() == ({"own"} if changes else set())
    for name, tensors in kept(settings).items():
        assert_close(kept_alone[name], tensors)
    moved = np.concatenate([array.ravel() for array in alone.values()])
    assert np.abs(moved).max() > 1e-3, "the two agree on something"


@given(images=st.lists(st.integers(1, 4), max_size=9), size=st.integers(1, 4))
def test_the_parts_of_a_step_are_its_drawn_patients_each_once_and_whole(images: list[int], size: int) -> None:
    batch = make_batch(images, (8, 8))
    parts = [Together(rank, size).share_of(batch) for rank in range(size)]
    for name in ("images", "targets", "counts"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert all(int(part.counts.sum()) == len(part.images) for part in parts)
    assert max(part.patients for part in parts) - min(part.patients for part in parts) <= 1


@pytest.mark.parametrize(
    ("study", "processes"),
    [
        (make_study(), 4),
        (make_study(epsilon=None), 4),
        (make_study(epsilon=None, normalisation="batch"), 1),
    ],
)
def test_what_is_no_sum_over_patients_is_trained_in_one_process(study: StudySpec, processes: int) -> None:
    assert processes_for(study, 4) == processes


@CARRIERS
def test_sums_are_of_all_processes_and_what_the_first_makes_of_them_is_told_to_all(over: Over) -> None:
    with training_together(3, 8, _add_rank, [], over) as together:
        totals = [_doubled(together) for _ in range(3)]
    # The others add their rank times what they were told last: 1, then 1 + (1 + 2) x 2, then 1 + 3 x 14.
    assert totals == [1.0, 7.0, 43.0]


def _doubled(together: Together) -> float:
    total = together.summed(torch.full((8,), 1.0, dtype=torch.float64))
    together.told(lambda: 2 * total.float(), like=total)
    return float(total[7])


def _add_rank(together: Together) -> None:
    last = torch.zeros(8, dtype=torch.float64)
    for _ in range(3):
        together.summed(together.rank * last)
        last = together.told(last.clone, like=last).to(torch.float64)


def test_each_process_takes_a_gpu_of_its_own_where_there_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for shown in (4, 2):
        monkeypatch.setattr(torch.cuda, "device_count", lambda shown=shown: shown)
        for rank in range(1, 4):
            take_gpu(rank)
    assert taken == [1, 2, 3, 1, 0, 1]  # the first process has the first


def test_one_process_is_alone() -> None:
    with training_together(1, 8, _end, []) as together:
        assert together is ALONE


def _take_a_step(together: Together) -> None:
    together.told(lambda: torch.zeros(1), together.summed(torch.zeros(1)))


def _end(together: Together, code: int) -> None:
    _take_a_step(together)
    os._exit(code)


def _kill(together: Together) -> None:
    _take_a_step(together)
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(together: Together) -> None:
    _take_a_step(together)
    raise ValueError("/images/WARD0001/1.dcm")


def _wait(together: Together, note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    together.told(lambda: torch.zeros(1), torch.zeros(1))


@CARRIERS
@pytest.mark.parametrize(("numbers", "agreed"), [((5, 5, 5), True), ((5, 4, 6), False), ((0, 0, 0), True)])
def test_processes_agree_on_equal_numbers_only(over: Over, numbers: tuple[int, ...], agreed: bool) -> None:
    with training_together(3, 8, _agree, [numbers], over) as together:
        assert together.agree(numbers[0]) is agreed
        assert together.agree(7)
        total = together.summed(torch.zeros(1))
    assert float(total) == 2.0 * agreed  # the others were told the same


def _agree(together: Together, numbers: tuple[int, ...]) -> None:
    agreed = together.agree(numbers[together.rank])
    together.agree(7)
    together.summed(torch.full((1,), float(agreed)))


def _go_on_with(helper: Callable[..., None], arguments: list[Any], over: Over = "shared-memory") -> None:
    with training_together(2, 8, helper, arguments, over) as together:
        for _ in range(3):
            _take_a_step(together)


@pytest.mark.parametrize(
    ("helper", "arguments", "error"),
    [(_end, [3], TrainingProcessLostError), (_kill, [], MemoryError), (_fail, [], TrainingProcessLostError)],
    ids=["ended", "killed", "failed"],
)
@CARRIERS
def test_a_lost_process_ends_the_round_with_a_reason(
    helper: Callable[..., None],
    arguments: list[Any],
    error: type[Exception],
    over: Over,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(error):
        _go_on_with(helper, arguments, over)
    assert "WARD" not in "".join(capfd.readouterr())


def _run_short_of(together: Together, error: Exception) -> None:
    _take_a_step(together)
    raise error


@CARRIERS
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1")])
def test_memory_that_is_short_in_another_process_is_short_for_the_round(error: Exception, over: Over) -> None:
    with pytest.raises(MemoryError):
        _go_on_with(_run_short_of, [error], over)


@CARRIERS
def test_a_disk_that_is_full_in_another_process_is_full_for_the_round(over: Over) -> None:
    with pytest.raises(DiskFullError):
        _go_on_with(_run_short_of, [OSError(errno.ENOSPC, "full")], over)


def _hang_in_the_driver(together: Together, gone: str) -> None:
    _take_a_step(together)
    carrier = together.carrier
    assert isinstance(carrier, SharedMemory)
    carrier.pipes[0].close()
    _eventually(Path(gone).exists)
    os._exit(WITHOUT_DEVICE)


def test_a_process_that_takes_its_time_to_end_still_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_processes, "ENDING_SECONDS", 0.01)
    gone = tmp_path / "gone"
    timer = threading.Timer(0.5, gone.touch)
    timer.start()
    with pytest.raises(RuntimeError) as told:
        _go_on_with(_hang_in_the_driver, [str(gone)])
    timer.join()
    assert is_lost_device(told.value)


def _lose_gpu(together: Together) -> None:
    _take_a_step(together)
    raise torch.AcceleratorError("CUDA error: unspecified launch failure")


@CARRIERS
def test_a_gpu_that_is_lost_in_another_process_is_lost_for_the_round(over: Over) -> None:
    with pytest.raises(RuntimeError) as told:
        _go_on_with(_lose_gpu, [], over)
    assert is_lost_device(told.value)


@CARRIERS
def test_an_error_of_the_round_itself_is_told_as_it_is(tmp_path: Path, over: Over) -> None:
    with pytest.raises(RuntimeError, match="my own"), training_together(2, 8, _wait, [str(tmp_path / "pid")], over):
        raise RuntimeError("my own")


@CARRIERS
def test_a_process_that_cannot_start_is_lost_at_once(monkeypatch: pytest.MonkeyPatch, over: Over) -> None:
    monkeypatch.setattr("sys.path", [path for path in sys.path if Path(path) not in Path(__file__).parents])
    with pytest.raises(TrainingProcessLostError):
        _go_on_with(_end, [3], over)


def _first(note: str, over: Over) -> None:
    with training_together(2, 8, _wait, [note], over):
        time.sleep(2 * PATIENCE_SECONDS)


@CARRIERS
def test_the_others_end_when_the_first_is_killed(tmp_path: Path, over: Over) -> None:
    note = tmp_path / "pid"
    first = multiprocessing.get_context("spawn").Process(target=_first, args=(str(note), over))
    first.start()
    helper = int(_eventually(lambda: note.read_text() if note.exists() else ""))
    first.kill()
    first.join()
    _eventually(lambda: not _is_running(helper))


@pytest.mark.parametrize("under_a_worker", [True, False])
def test_a_workers_job_that_lost_a_process_has_crashed_and_is_no_answer_yet(
    settings: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, under_a_worker: bool
) -> None:
    monkeypatch.setattr(job, "_run", _lose_a_process)
    study = study_of(None)
    if under_a_worker:  # a cohort's figures and candidates go to its staging folder
        staged = replace(settings, paths=SitePaths(settings.paths.root, tmp_path / "staging"))
        with pytest.raises(SystemExit) as ended:
            do(staged, "evaluate", study, "one")
        assert ended.value.code == 1
        assert not staged.paths.candidates.exists()
    else:
        do(settings, "evaluate", study, "one")
        candidate = read_candidate(settings.paths, "one")
        assert candidate is not None
        assert candidate.reason is Reason.INTERNAL


def _lose_a_process(_: object) -> None:
    raise TrainingProcessLostError("One was lost.")


class InItsPlace:
    """An argument of a helper: what it does instead of the rendezvous, or as it comes there."""

    def __init__(self, act: Callable[..., None], *arguments: object) -> None:
        self.act, self.arguments = act, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.act, self.arguments


def _die_in_the_rendezvous(number: int) -> None:
    def dying(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)

    distributed.init_process_group = dying


def _write_pid(note: str) -> None:
    Path(note).write_text(str(os.getpid()))


def _take_no_part(*_: object) -> None:
    pass


def _first_meets_nobody(number: int) -> None:
    with training_together(2, 8, _take_no_part, [InItsPlace(_die_in_the_rendezvous, number)], "gloo"):
        pass


def _first_dies_in_the_rendezvous(note: str) -> None:
    _die_in_the_rendezvous(signal.SIGKILL)
    with training_together(2, 8, _take_no_part, [InItsPlace(_write_pid, note)], "gloo"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_first_does_not_wait_for_one_that_died_in_the_rendezvous(number: int) -> None:
    first = multiprocessing.get_context("spawn").Process(target=_first_meets_nobody, args=(number,))
    first.start()
    try:
        first.join(PATIENCE_SECONDS)
        assert first.exitcode == FAILED
    finally:
        first.kill()


def test_nobody_waits_for_a_first_that_was_killed_in_the_rendezvous(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    first = multiprocessing.get_context("spawn").Process(target=_first_dies_in_the_rendezvous, args=(str(note),))
    first.start()
    first.join(PATIENCE_SECONDS)
    assert first.exitcode == -signal.SIGKILL
    helper = int(note.read_text())
    try:
        _eventually(lambda: not _is_running(helper))
    finally:
        with suppress(ProcessLookupError):
            os.kill(helper, signal.SIGKILL)


def test_the_first_may_go_on_alone_when_the_others_have_done_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_watch, "HANGING_SECONDS", 0.0)
    with training_together(2, 8, _take_a_step, [], "gloo") as together:
        _take_a_step(together)
        _eventually(lambda: not multiprocessing.active_children())


def test_processes_that_meet_leave_nothing_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with training_together(2, 8, _take_a_step, [], "gloo") as together:
        _take_a_step(together)
        assert list(tmp_path.iterdir()) == []


def _eventually(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < until, "in vain"
        time.sleep(0.05)
    return found


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_gloo_opens_is_of_the_loopback_alone() -> None:
    with training_together(2, 8, _add_rank, [], "gloo") as together:
        opened = _sockets_of(os.getpid())
        for _ in range(3):
            _doubled(together)
    assert opened
    assert {address.is_loopback for address in opened} == {True}


def test_the_look_at_sockets_sees_one_that_is_open_to_others() -> None:
    with socket.create_server(("0.0.0.0", 0)):  # noqa: S104 - what must be seen
        assert any(not address.is_loopback for address in _sockets_of(os.getpid()))


def _sockets_of(process: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the own addresses of a process's TCP sockets, listening or connected, whichever library opened them."""
    links = list[str]()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one by which the folder was read
            links.append(str(entry.readlink()))
    own = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = list[ipaddress.IPv4Address | ipaddress.IPv6Address]()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]
        for fields in map(str.split, lines):
            if fields[9] in own:
                words = bytes.fromhex(fields[1].partition(":")[0])
                ordered = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.append(ipaddress.ip_address(ordered))
    return found


def test_nccl_is_refused_where_there_are_too_few_gpus() -> None:
    shown = max(1, torch.cuda.device_count())
    with (
        pytest.raises(SettingsError, match=f"nccl needs a GPU for each of the {shown + 1} processes"),
        training_together(shown + 1, 8, _add_rank, [], "nccl"),
    ):
        pass
