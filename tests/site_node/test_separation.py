"""Gate, worker and agent as three system users: each reaches what it needs, and nothing of the others."""

import os
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from site_node.candidate import CohortFigures, candidate_folder, cohort_path, publish, write_cohort_figures
from site_node.cohort_members import members_path
from site_node.orders import cohort_task_id, read_order
from site_node.settings import SitePaths
from tests.fakes.gated_site import GatedSite, study_of

SITE_GROUP, JOBS_GROUP = 64001, 64002
GATE, WORKER, AGENT = 64011, 64012, 64013
GROUPS = {GATE: [SITE_GROUP, JOBS_GROUP], WORKER: [SITE_GROUP, JOBS_GROUP], AGENT: [SITE_GROUP]}
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become three users: run it as root")


def acting_as(user: int, action: Callable[[], object]) -> None:
    """Do something in a child process as this user, with its groups and the umask of the site's commands."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(GROUPS[user])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o027)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def own(paths: SitePaths) -> None:
    """Give the folders away as docs/operations.md says."""
    owners: dict[int, tuple[Path, ...]] = {GATE: (paths.gate, paths.mark, paths.verdicts, paths.outbox, paths.orders)}
    owners |= {WORKER: (paths.worker, paths.handover), AGENT: (paths.agent, paths.inbox, paths.receipts)}
    jobs = (paths.worker, paths.handover, paths.orders)
    for path in (paths.root, *sorted(paths.root.rglob("*"))):
        within = {path, *path.parents}
        owner = next((user for user, folders in owners.items() if within & set(folders)), 0)
        mode = path.stat().st_mode  # a change of owner may take setgid away
        os.chown(path, owner, JOBS_GROUP if within & set(jobs) else SITE_GROUP)
        path.chmod(stat.S_IMODE(mode))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatedSite]:
    _rehearse(tmp_path)
    with tempfile.TemporaryDirectory(prefix="wardround-users-") as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to other users
        made = GatedSite.make(Path(folder))
        made.gate.close()
        own(made.paths)
        yield made


def _rehearse(folder: Path) -> None:
    """Go the whole way once as ourselves: another user need not be able to read Python's own modules, loaded late."""
    site, study = GatedSite.make(folder), study_of()
    site.join(study)
    site.hand_over(site.give(site.task(study)))
    site.sweep()


def test_init_makes_folders_that_hand_their_group_on(tmp_path: Path) -> None:
    paths = GatedSite.make(tmp_path).paths
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths.folders() if path != paths.logs}
    private = {paths.gate, paths.gate_payloads, paths.mark, paths.mark_of_charges, paths.agent, paths.partial}
    private |= {paths.worker, paths.cache, paths.worker_receipts, paths.ingest}
    taken = {paths.handover, paths.candidates, paths.cohorts, paths.progress, paths.receipts}
    assert {path for path, mode in modes.items() if mode == 0o2700} == private
    assert {path for path, mode in modes.items() if mode == 0o2770} == taken
    assert {mode for path, mode in modes.items() if path not in private | taken} == {0o2750}


@needs_root
def test_three_users_carry_a_study_from_mail_to_receipt_and_a_task_to_its_update(site: GatedSite) -> None:
    study, paths = study_of(), site.paths

    def sweep() -> None:
        site.start()
        site.sweep()

    def count() -> None:
        assert read_order(paths, cohort_task_id(study.digest)) is not None
        staged = SitePaths(paths.root, paths.worker / "staging" / "1")  # as a job's child does: made there, then moved
        staged.cohorts.mkdir(parents=True)
        site_of(staged).count_cohort(study)
        members_path(staged, study.digest).replace(members_path(paths, study.digest))
        cohort_path(staged, study.digest).replace(cohort_path(paths, study.digest))

    def site_of(staged: SitePaths) -> GatedSite:
        moved = object.__new__(GatedSite)
        moved.__dict__ |= {**site.__dict__, "settings": type(site.settings)(**{**vars(site.settings), "paths": staged})}
        return moved

    def train() -> None:
        staged = SitePaths(paths.root, paths.worker / "staging" / "2")
        staged.candidates.mkdir(parents=True)
        site_of(staged).hand_over(task)
        publish(candidate_folder(staged, task.task_id), candidate_folder(paths, task.task_id))

    acting_as(AGENT, lambda: site.propose(study))
    acting_as(GATE, sweep)
    acting_as(WORKER, count)
    acting_as(GATE, sweep)
    assert list(paths.outbox.iterdir())
    site.number = 1
    task = site.task(study)
    for blob in paths.blobs.iterdir():
        blob.chmod(0o640)
    acting_as(AGENT, lambda: site.post(task))
    own(paths)
    acting_as(GATE, sweep)
    acting_as(WORKER, train)
    acting_as(GATE, sweep)
    assert list(paths.outbox.glob("*.payload"))
    assert not list(paths.candidates.iterdir())
    acting_as(AGENT, lambda: [path.read_bytes() for path in paths.outbox.iterdir()])
    site.receive_all()
    own(paths)
    acting_as(GATE, sweep)
    assert [*paths.outbox.iterdir(), *paths.receipts.iterdir()] == []


@needs_root
def test_no_user_reads_what_is_another_s(site: GatedSite) -> None:
    paths = site.paths
    acting_as(WORKER, lambda: write_cohort_figures(paths, CohortFigures(study_digest=study_of().digest)))
    figures = cohort_path(paths, study_of().digest)
    closed = {
        AGENT: (paths.identity_key, paths.gate_database, paths.noise_key, figures),
        WORKER: (paths.identity_key, paths.gate_database, paths.transport_key),
        GATE: (paths.noise_key, paths.transport_key),
    }

    def refused(files: tuple[Path, ...]) -> None:
        for file in files:
            with pytest.raises(PermissionError):
                file.read_bytes()

    for user, files in closed.items():
        acting_as(user, lambda files=files: refused(files))  # type: ignore[misc]
    acting_as(GATE, figures.read_bytes)
