"""A restore undoes no decision unseen, the same backup may come twice, and a backup keeps no secret of a mask."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from protocol.messages import Reason, UpdateNotice
from site_node.backup.contents import as_of_now
from site_node.backup.later_records import later_records
from site_node.backup.restoring import restore
from site_node.governance import high_water
from site_node.governance.masking_records import end_masked_rounds, masked_round
from site_node.governance.records import open_records
from site_node.opt_outs import load_identities, record_opt_outs
from site_node.settings import load_settings
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.masked_peers import MaskedPeers
from tests.site_node.backup.backed_up import KEY, back_up, bring_back, refusals, run
from tests.site_node.governance.test_high_water import answer, hear, notices


def test_the_same_backup_restored_twice_onto_a_lost_machine_answers_no_round_otherwise(
    site: GatedSite, tmp_path: Path, key: Path
) -> None:
    study, backup, root = study_of(), tmp_path / "b", site.paths.root
    site.join(study)
    assert run("backup", root, backup, "--key-file", key)[0] == 0
    answer(site, site.task(study))
    charges = site.charges()
    assert len(notices(site)) == 1
    site.gate.close()
    shutil.rmtree(root)
    status, output = run("restore", root, backup, "--key-file", key)
    assert (status, "Decide it again" in output) == (0, True)
    assert run("reconcile", root, "--yes")[0] == 0
    status, output = run("restore", root, backup, "--key-file", key)
    assert (status, "studies given up" in output) == (1, True)
    assert run("restore", root, backup, "--key-file", key, "--force")[0] == 0
    site.seen.clear()
    site.start()
    answer(site, site.task(study, task_id="another"), 0.25)
    assert (notices(site), refusals(site)) == ([], [Reason.LEDGER_BEHIND])
    assert run("reconcile", root, "--yes")[0] == 0
    hear(site, *charges)
    answer(site, site.task(study, task_id="a-third"), 0.25)
    assert (notices(site), refusals(site)[1:]) == ([], [Reason.APPROVAL_WITHDRAWN])


def test_a_lost_machine_goes_on_by_itself_once_the_hub_has_answered(site: GatedSite, tmp_path: Path) -> None:
    first, second = study_of(), study_of(name="second")
    site.join(first)
    back_up(site, tmp_path / "b")
    charges = site.charges()
    bring_back(site, tmp_path / "b", force=False, root=tmp_path / "new")
    assert run("reconcile", tmp_path / "new", "--yes")[0] == 0
    site.join(second)  # refused with ledger-behind: the hub sends what it keeps
    hear(site, *charges)
    assert site.record(second).state == "approved"
    trained_second = site.give(site.task(second))
    site.hand_over(trained_second)
    site.sweep()
    assert any(isinstance(message, UpdateNotice) for message in site.everything_sent())


def test_a_withdrawal_an_exclusion_and_a_stricter_policy_are_not_undone_without_force(
    site: GatedSite, tmp_path: Path, key: Path
) -> None:
    study, root, backup = study_of(), site.paths.root, tmp_path / "b"
    site.join(study)
    site.receive_all()
    site.sweep()
    assert run("backup", root, backup, "--key-file", key)[0] == 0
    site.gate.close()
    (tmp_path / "out.csv").write_text("patient_id\nP1\n")
    settings, policy = root / "site.yaml", root / "policy.yaml"
    settings.write_text(f"{settings.read_text()}\nexcluded_patients: {tmp_path / 'out.csv'}\n")
    policy.write_text(f"{policy.read_text()}noised_evaluation: true\n")
    status, output = run("restore", root, backup, "--key-file", key)
    assert (status, "policy.yaml" in output, "site.yaml" in output) == (0, True, True)  # left as they were
    assert not load_identities(load_settings(root)).takes_part("P1")
    assert "noised_evaluation" in policy.read_text()

    assert run("approve", root, study.digest, "--withdraw")[0] == 0  # no gate runs: it has not left yet
    status, output = run("restore", root, backup, "--key-file", key)
    assert (status, "decisions on studies" in output) == (1, True)
    status, output = run("restore", root, backup, "--key-file", key, "--force", "--json")
    told = json.loads(output)
    assert (status, told["rewritten"]) == (0, ["site.yaml", "policy.yaml"])
    assert "decisions on studies" in told["undone"]


def test_a_pause_is_not_undone_and_what_nobody_decided_is_no_objection(site: GatedSite, tmp_path: Path) -> None:
    site.join(study_of())
    with as_of_now(site.paths.gate_database) as before:
        assert later_records(site.paths.gate_database, before) == ()
        with closing(open_records(site.paths)) as database:
            database.execute("INSERT INTO switches VALUES ('hub heard', 1)")
            assert later_records(site.paths.gate_database, before) == ()
            database.execute("INSERT INTO switches VALUES ('paused', 1)")
        assert later_records(site.paths.gate_database, before) == ("pauses and drains",)
        with closing(sqlite3.connect(before, isolation_level=None)) as older:
            older.execute("DROP TABLE lives")  # of an earlier version
        with closing(open_records(site.paths)) as database:
            database.execute("INSERT INTO lives VALUES (1, 'a', 0, 0)")
        assert later_records(site.paths.gate_database, before) == ("beginnings after a restore", "pauses and drains")


def test_a_gate_that_cannot_be_read_is_replaced_by_force_alone(site: GatedSite, tmp_path: Path, key: Path) -> None:
    back_up(site, tmp_path / "b")
    site.gate.close()
    site.paths.gate_database.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    for path in site.paths.gate.glob("gate.sqlite-*"):
        path.unlink()
    assert run("restore", site.paths.root, tmp_path / "b", "--key-file", key)[0] == 1
    status, output = run("restore", site.paths.root, tmp_path / "b", "--key-file", key, "--force")
    assert (status, "nobody knows" in output) == (0, True)


def test_opt_outs_stay_even_by_force(site: GatedSite, tmp_path: Path) -> None:
    back_up(site, tmp_path / "b")
    record_opt_outs(site.paths.opt_outs, ["P1"])
    site.gate.close()
    restore(site.paths.root, tmp_path / "b", KEY, force=True)
    assert not load_identities(load_settings(site.paths.root)).takes_part("P1")


def masked_secrets(site: GatedSite) -> list[bytes]:
    with closing(open_records(site.paths)) as database:
        row = database.execute("SELECT channel_key, mask_key, seed, own_shares FROM masking").fetchone()
    return [value.encode() if isinstance(value, str) else value for value in row if value is not None]


@pytest.mark.parametrize("phase", ["keyed", "shared", "masked", "seen"])
def test_a_backup_holds_no_secret_of_a_masked_round_and_the_round_ends_there(
    site: GatedSite, tmp_path: Path, phase: str
) -> None:
    peers = MaskedPeers(site)
    peers.join()
    if phase != "keyed":
        peers.say(peers.roster_message())
    if phase in ("masked", "seen"):
        peers.hand_over()
        peers.say(peers.delivery())
    if phase == "seen":
        peers.say(peers.survivors())
    secrets = masked_secrets(site)
    assert secrets
    with as_of_now(site.paths.gate_database) as copy:
        assert all(secret in copy.read_bytes() for secret in secrets)
        end_masked_rounds(copy)
        assert not any(secret in copy.read_bytes() for secret in secrets)
        assert [path.name for path in copy.parent.glob(f"{copy.name}-*")] == []
    assert masked_secrets(site) == secrets  # the site's own goes on

    site.receive_all()
    site.sweep()
    survivors, proof = peers.survivors(), peers.proof()
    back_up(site, tmp_path / "b")
    bring_back(site, tmp_path / "b", force=False)
    assert high_water.fits(site.paths, open_records(site.paths))
    known = masked_round(open_records(site.paths), peers.study.digest, 1)
    assert known is not None
    assert known.phase == "ended"
    if phase in ("keyed", "shared"):
        peers.hand_over()
    peers.say(survivors)
    peers.say(proof)
    left = [type(message).__name__ for message in site.sent()]
    assert left == (["TaskRefusal"] if phase in ("keyed", "shared") else [])  # no part of a masked sum
