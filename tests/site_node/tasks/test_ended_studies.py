"""What the worker kept of a study goes with its end, and nothing else does."""

from pathlib import Path

import numpy as np
import pytest

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import StudyClosed
from site_node.cohort_members import members_path
from site_node.orders import ended_path
from site_node.settings import SitePaths
from site_node.tasks.ended_studies import erase_ended
from site_node.training.local_state import LocalState
from site_node.training.personal import OWN
from tests.fakes.gated_site import GatedSite, study_of
from tests.site_node.governance.test_gate import decide_as

ENDED, RUNNING = (digest_of_bytes(name) for name in (b"ended", b"running"))


def keep_something(paths: SitePaths, digest: str) -> None:
    paths.frozen_cohorts.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".npy"):
        (paths.frozen_cohorts / f"{hex_of(digest)}{suffix}").write_bytes(b"patients")
    unpublished = paths.worker / "staging" / "cohort.1" / "frozen" / f"{hex_of(digest)}.json"
    unpublished.parent.mkdir(parents=True, exist_ok=True)
    unpublished.write_bytes(b"patients")
    paths.cohorts.mkdir(parents=True, exist_ok=True)
    members_path(paths, digest).write_bytes(b"pseudonyms")
    for name in ("control", OWN):
        LocalState(paths.local_state, digest, 1).keep(name, {"weight": np.ones(2, np.float32)})


def kept(paths: SitePaths, digest: str) -> set[str]:
    states = paths.local_state / hex_of(digest)
    folders = (paths.frozen_cohorts, paths.worker / "staging" / "cohort.1", paths.cohorts)
    files = [path for folder in folders for path in folder.rglob(f"{hex_of(digest)}*")]
    return {path.suffix for path in files} | {path.name for path in states.iterdir()}


def test_cohort_and_states_go_with_the_study_and_a_personal_model_stays(tmp_path: Path) -> None:
    paths = SitePaths(tmp_path)
    paths.orders.mkdir()
    assert erase_ended(paths) == 0
    keep_something(paths, ENDED)
    keep_something(paths, RUNNING)
    ended_path(paths, ENDED).touch()
    assert erase_ended(paths) == 1
    assert kept(paths, ENDED) == {OWN}
    assert kept(paths, RUNNING) == {".json", ".npy", ".members", "control", OWN}
    assert erase_ended(paths) == 0


def test_the_gate_says_that_a_study_has_ended_when_the_hub_closed_it(tmp_path: Path) -> None:
    site, study = GatedSite.make(tmp_path), study_of()
    site.join(study)
    assert not ended_path(site.paths, study.digest).exists()
    site.post(StudyClosed(study_digest=study.digest, state="stopped"))
    site.sweep()
    assert ended_path(site.paths, study.digest).exists()
    ended_path(site.paths, study.digest).unlink()
    site.sweep()
    assert ended_path(site.paths, study.digest).exists()


@pytest.mark.parametrize(("word", "ends"), [("refused", True), ("withdrawn", False)])
def test_a_refused_study_has_ended_and_a_withdrawn_one_may_be_approved_again(
    tmp_path: Path, word: str, ends: bool
) -> None:
    site = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nminimum_patients: 1\n")
    study = study_of()
    site.join(study)
    if word == "withdrawn":
        decide_as(site, study.digest, "approved")
        site.sweep()
    decide_as(site, study.digest, word)
    site.sweep()
    assert ended_path(site.paths, study.digest).exists() is ends
