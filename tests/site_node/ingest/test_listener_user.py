"""The listener as a system user of its own, as docs/images_in.md says: it receives, and can read nothing else."""

import os
import re
import signal
import stat
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from site_node.command_line import UMASK
from site_node.ingest.listener import listening
from site_node.ingest.listener_paths import ListenerPaths
from site_node.settings import SitePaths, load_settings
from tests.fakes.dcmtk import Modality
from tests.fakes.dicom import make_dataset, save
from tests.fakes.orthanc import free_port
from tests.fakes.running_listener import make_site

DOCUMENT = Path(__file__).parents[3] / "docs" / "images_in.md"
SITE_GROUP, JOBS_GROUP = 64001, 64002
GATE, WORKER, AGENT, INGEST = 64011, 64012, 64013, 64014
SECONDS = 30
PIXELS = np.full((32, 24), 7, dtype=np.uint16)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users: run it as root")


@pytest.fixture
def site() -> Iterator[SitePaths]:
    with tempfile.TemporaryDirectory(prefix="wardround-ingest-") as folder:
        Path(folder).chmod(0o755)
        paths = make_site(Path(folder), port=free_port())
        (paths.worker / "noise.key").write_bytes(bytes(32))
        (paths.outbox / "waits").write_bytes(b"an update")
        _give_away(paths)
        yield paths


def _give_away(paths: SitePaths) -> None:
    """Own the folders as docs/operations.md says, then as docs/images_in.md says."""
    owners: dict[int, tuple[Path, ...]] = {GATE: (paths.gate, paths.mark, paths.verdicts, paths.outbox, paths.orders)}
    owners |= {WORKER: (paths.worker, paths.handover), AGENT: (paths.agent, paths.inbox, paths.receipts)}
    for path in (paths.root, *sorted(paths.root.rglob("*"))):
        _own(path, next((user for user, those in owners.items() if {path, *path.parents} & set(those)), 0), SITE_GROUP)
    names = {"wr-ingest": str(INGEST), "wardround-jobs": str(JOBS_GROUP)}
    lines = re.findall(r"^    (?:chown|chmod) .+$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        for step in line.strip().split(" && "):
            program, *words = [re.sub("|".join(names), lambda found: names[found[0]], word) for word in step.split()]
            _do(paths, program, words)


def _do(paths: SitePaths, program: str, words: list[str]) -> None:
    if program == "chmod":
        path = (paths.root / words[1]).resolve()
        path.chmod(stat.S_IMODE(path.stat().st_mode) | {"o+x": 0o001, "o+r": 0o004}[words[0]])
        return
    owner, group = map(int, words[1].split(":"))
    for top in (paths.root / name for name in words[2:]):
        for path in (top, *top.rglob("*")):
            _own(path, owner, group)


def _own(path: Path, owner: int, group: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)  # a change of owner may take setgid away
    os.chown(path, owner, group)
    path.chmod(mode)


def _as(user: int, groups: list[int], action: Callable[[], object]) -> int:
    """Do something in a child process as this user; return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setgroups(groups)
        os.setgid(user)
        os.setuid(user)
        os.umask(UMASK)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _ended_well(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _listen(paths: SitePaths) -> None:
    settings = load_settings(paths.root)
    assert settings.listener is not None
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with listening(settings.listener, ListenerPaths.of(settings.paths)) as listener:
        listener.run(stop)


@contextmanager
def _listening(paths: SitePaths) -> Iterator[int]:
    child = _as(INGEST, [], lambda: _listen(paths))
    try:
        settings = load_settings(paths.root).listener
        assert settings is not None
        waited = threading.Event()
        for _ in range(SECONDS * 10):
            if Modality(settings.port).echo():
                break
            waited.wait(0.1)
        yield settings.port
    finally:
        os.kill(child, signal.SIGTERM)
        assert _ended_well(child)


def test_it_receives_and_the_worker_reads_and_cannot_change_what_came(site: SitePaths, tmp_path: Path) -> None:
    file = save(make_dataset(PIXELS), tmp_path / "image.dcm")
    with _listening(site) as port:
        assert Modality(port).send([file]).statuses == {file: 0}
    [stored] = (site.received / "sent").rglob("*.dcm")
    assert stored.stat().st_uid == INGEST
    assert stored.stat().st_gid == JOBS_GROUP

    def read() -> None:
        assert stored.read_bytes()[128:132] == b"DICM"
        for change in (lambda: stored.write_bytes(b""), stored.unlink):
            with pytest.raises(PermissionError):
                change()

    assert _ended_well(_as(WORKER, [SITE_GROUP, JOBS_GROUP], read))
    for user, groups in ((AGENT, [SITE_GROUP]), (65000, [])):
        assert not _ended_well(_as(user, groups, stored.read_bytes))


def test_it_reads_neither_keys_nor_ledger_nor_index_nor_what_leaves(site: SitePaths) -> None:
    closed = [site.identity_key, site.gate, site.mark, site.agent, site.inbox, site.worker / "noise.key", site.worker]
    closed += [site.outbox, site.outbox / "waits", site.receipts, site.handover, site.orders]

    def refused() -> None:
        assert site.configuration.read_text(encoding="utf-8")
        for path in closed:
            with pytest.raises(PermissionError):
                path.read_bytes() if path.suffix else os.listdir(path)  # noqa: PTH208 - the right to list

    assert _ended_well(_as(INGEST, [], refused))
