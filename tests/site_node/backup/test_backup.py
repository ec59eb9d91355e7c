"""A site is backed up while it runs and brought back, and no privacy budget comes back with it."""

import json
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from protocol.messages import Reason, UpdateNotice
from site_node.backup import sealed_file, writing
from site_node.backup.contents import as_of_now, is_allowed, items
from site_node.backup.inventory import Head, Inventory, heads_of
from site_node.backup.restoring import Standing, objection_to, restore
from site_node.errors import BackupError
from site_node.governance import hash_chain, high_water
from site_node.governance.records import open_records
from site_node.settings import SitePaths, load_settings
from tests.fakes.gated_site import GatedSite, study_of
from tests.site_node.backup.backed_up import KEY, back_up, bring_back, refusals, run, trained


def test_what_cannot_be_made_again_is_in_it_and_the_mark_is_not(site: GatedSite, tmp_path: Path) -> None:
    study = study_of()
    site.join(study)
    paths = site.paths
    paths.index.write_bytes(b"")
    for folder, name in ((paths.frozen_cohorts, "aa.json"), (paths.local_state, "own.bin"), (paths.cache, "image.npy")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    names = {entry.name for entry in back_up(site, tmp_path / "b").files}
    assert {"site.yaml", "policy.yaml", "gate/gate.sqlite", "gate/hub.pub", "agent/transport.key"} <= names
    assert {"worker/noise.key", "worker/index.sqlite", "worker/cohorts/aa.json"} <= names
    assert paths.identity_key.relative_to(paths.root).as_posix() in names
    assert any(name.startswith("inbox/") for name in names)
    assert not any(name.startswith(("mark", "worker/cache", "worker/local_state", "worker/jobs")) for name in names)
    more = back_up(site, tmp_path / "c", local_state=True)
    assert "worker/local_state/own.bin" in {entry.name for entry in more.files}


def test_the_gate_s_database_is_read_after_what_it_rests_on_and_before_what_it_names(site: GatedSite) -> None:
    site.join(study_of())
    site.paths.index.touch()
    site.paths.frozen_cohorts.mkdir(exist_ok=True)
    (site.paths.frozen_cohorts / "aa.json").touch()
    names = [item.name for item in items(site.paths, local_state=False)]
    wanted = ["agent/transport.key", "worker/index.sqlite", "gate/gate.sqlite", "worker/cohorts/aa.json"]
    assert [name for name in names if name in wanted] == wanted


def test_the_file_is_private_encrypted_and_says_how_far_the_ledgers_had_come(site: GatedSite, tmp_path: Path) -> None:
    site.join(study_of())
    inventory = back_up(site, tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    data = (tmp_path / "b").read_bytes()
    assert b"SQLite format" not in data
    assert site.paths.noise_key.read_bytes() not in data
    database = open_records(site.paths)
    assert (inventory.egress.number, inventory.egress.chain) == hash_chain.head(database, "egress")
    assert (inventory.ledger.number, inventory.ledger.chain) == hash_chain.head(database, "ledger")
    assert inventory.ledger.number > 0
    assert not list(site.paths.root.rglob(".*sqlite*"))  # no copy in clear is left behind


def test_everything_comes_back_to_the_byte(site: GatedSite, tmp_path: Path) -> None:
    site.join(study_of())
    inventory = back_up(site, tmp_path / "b")
    new = tmp_path / "new"
    restore(new, tmp_path / "b", KEY, force=False)
    for entry in inventory.files:
        if not entry.name.endswith(".sqlite"):
            assert (new / entry.name).read_bytes() == (site.paths.root / entry.name).read_bytes(), entry.name
        assert stat.S_IMODE((new / entry.name).stat().st_mode) == entry.mode
    assert heads_of(new / "gate/gate.sqlite") == (inventory.ledger, inventory.egress)
    assert {stat.S_IMODE((new / name).stat().st_mode) for name in ("gate", "worker", "agent", "mark")} == {0o2700}
    assert load_settings(new).name == "st-anna"


def test_a_backup_after_which_nothing_left_goes_on_where_it_was(site: GatedSite, tmp_path: Path) -> None:
    site.join(study_of())
    site.receive_all()
    site.sweep()
    back_up(site, tmp_path / "b")
    bring_back(site, tmp_path / "b", force=False)
    assert not high_water.is_behind(site.paths, open_records(site.paths))
    trained(site)
    assert refusals(site) == []
    assert any(isinstance(message, UpdateNotice) for message in site.everything_sent())


def test_after_a_round_a_restored_site_refuses_to_train_until_it_is_reconciled(
    site: GatedSite, tmp_path: Path, key: Path
) -> None:
    study = study_of()
    assert run("backup", site.paths.root, tmp_path / "before", "--key-file", key)[0] == 0
    site.join(study)  # charges the ledger
    site.receive_all()
    trained(site)
    spent = site.budget()["epsilon"]
    assert spent > 0
    site.gate.close()

    status, output = run("restore", site.paths.root, tmp_path / "before", "--key-file", key)
    assert (status, "newer" in output) == (1, True)
    assert run("restore", site.paths.root, tmp_path / "before", "--key-file", key, "--force")[0] == 0
    site.seen.clear()
    site.start()
    assert site.budget()["epsilon"] < spent  # forgotten
    second = study_of(name="second")
    site.join(second)
    site.give(site.task(second))
    assert not any(isinstance(message, UpdateNotice) for message in site.everything_sent())
    assert high_water.is_behind(site.paths, open_records(site.paths))

    status, output = run("reconcile", site.paths.root, "--yes")
    assert status == 0, output
    again = site.budget()["epsilon"]
    assert again >= spent  # charged to every patient: no budget was handed back
    assert study.digest in high_water.given_up(open_records(site.paths))


def test_a_site_whose_mark_was_lost_too_refuses_to_train_until_it_is_reconciled(
    site: GatedSite, tmp_path: Path
) -> None:
    site.join(study_of())
    site.receive_all()
    site.sweep()
    back_up(site, tmp_path / "b")
    trained(site)
    new = tmp_path / "new machine"
    bring_back(site, tmp_path / "b", force=False, root=new)
    assert not (new / "mark" / "egress.json").exists()
    site.give(site.task(study_of(), number=2))
    assert refusals(site) == [Reason.LEDGER_BEHIND]
    assert run("reconcile", new, "--yes")[0] == 0
    assert high_water.given_up(open_records(site.paths)) == {study_of().digest}


def test_even_a_backup_from_before_the_first_message_is_not_believed_to_be_the_present(
    site: GatedSite, tmp_path: Path
) -> None:
    back_up(site, tmp_path / "b")
    restore(tmp_path / "new", tmp_path / "b", KEY, force=False)
    paths = SitePaths((tmp_path / "new").resolve())
    with closing(open_records(paths)) as database:
        assert high_water.is_behind(paths, database)


def test_letters_that_lay_in_the_outbox_do_not_leave_after_a_restore(site: GatedSite, tmp_path: Path) -> None:
    back_up(site, tmp_path / "b")
    site.join(study_of())
    assert list(site.paths.outbox.iterdir())
    site.gate.close()
    restore(site.paths.root, tmp_path / "b", KEY, force=True)
    assert list(site.paths.outbox.iterdir()) == []


def test_the_folder_of_another_site_is_not_replaced_even_by_force(site: GatedSite, tmp_path: Path) -> None:
    back_up(site, tmp_path / "b")
    other = GatedSite.make(tmp_path / "other")
    before = other.paths.identity_key.read_bytes()
    with pytest.raises(BackupError, match="another site's"):
        restore(other.paths.root, tmp_path / "b", KEY, force=True)
    assert other.paths.identity_key.read_bytes() == before


def test_a_running_gate_is_not_replaced(site: GatedSite, tmp_path: Path, key: Path) -> None:
    back_up(site, tmp_path / "b")
    with site.gate._alone():
        status, output = run("restore", site.paths.root, tmp_path / "b", "--key-file", key, "--force")
    assert (status, "gate is running" in output) == (1, True)


def test_opt_outs_recorded_since_are_not_forgotten(site: GatedSite, tmp_path: Path) -> None:
    opt_outs = site.paths.worker / "opt_outs.sqlite"
    for value in ("then", "now"):
        with closing(sqlite3.connect(opt_outs, isolation_level=None)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS people (value TEXT)")
            database.execute("INSERT INTO people VALUES (?)", (value,))
        if value == "then":
            back_up(site, tmp_path / "b")
    site.gate.close()
    kept = restore(site.paths.root, tmp_path / "b", KEY, force=True).kept
    with closing(sqlite3.connect(opt_outs)) as database:
        found = [row[0] for row in database.execute("SELECT value FROM people")]
    assert (kept, found) == (("worker/opt_outs.sqlite",), ["then", "now"])


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, 1.0])
def test_a_damaged_backup_touches_nothing(site: GatedSite, tmp_path: Path, where: float) -> None:
    site.join(study_of())
    back_up(site, tmp_path / "b")
    data = bytearray((tmp_path / "b").read_bytes())
    data[int((len(data) - 1) * where)] ^= 1
    (tmp_path / "b").write_bytes(data)
    site.gate.close()
    before = {path: path.read_bytes() for path in site.paths.root.rglob("*") if path.is_file()}
    with pytest.raises(BackupError):
        restore(site.paths.root, tmp_path / "b", KEY, force=True)
    assert {path: path.read_bytes() for path in site.paths.root.rglob("*") if path.is_file()} == before


def test_what_is_written_is_read_back_before_it_has_its_name(
    site: GatedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: sealed_file.SealedWriter) -> None:
        finish(self)
        self._file.seek(-3, 2)
        self._file.write(b"\0\0\0")

    finish = sealed_file.SealedWriter.finish
    monkeypatch.setattr(sealed_file.SealedWriter, "finish", spoiled)
    with pytest.raises(BackupError):
        back_up(site, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["hospital"]


def test_a_database_that_is_written_to_all_the_time_is_copied_as_of_one_moment(tmp_path: Path) -> None:
    path, stop = tmp_path / "busy.sqlite", threading.Event()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript("CREATE TABLE a (n INTEGER); CREATE TABLE b (n INTEGER);")

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as busy:
            number = 0
            while not stop.is_set():
                busy.execute("BEGIN IMMEDIATE")
                busy.execute("INSERT INTO a VALUES (?)", (number,))
                busy.execute("INSERT INTO b VALUES (?)", (number,))
                busy.execute("COMMIT")
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            with as_of_now(path) as copy, closing(sqlite3.connect(copy)) as copied:
                assert stat.S_IMODE(copy.stat().st_mode) == 0o600
                rows = copied.execute("SELECT (SELECT COUNT(*) FROM a), (SELECT COUNT(*) FROM b)").fetchone()
                assert rows[0] == rows[1]
    finally:
        stop.set()
        writer.join()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_database_that_is_damaged_ends_the_backup_with_its_remedy(site: GatedSite, tmp_path: Path) -> None:
    site.paths.index.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(BackupError, match="cannot be copied"):
        back_up(site, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert [path.name for path in site.paths.worker.iterdir() if path.name.startswith(".")] == []


def test_every_byte_that_had_left_stands_in_the_backup_s_ledger(site: GatedSite, tmp_path: Path) -> None:
    """Whatever step of the backup a message leaves at: before the gate's database is read, it is in it."""
    site.join(study_of())
    left_before: list[int] = []

    def told(name: str) -> None:
        if name == "gate/gate.sqlite":
            trained(site)  # the site goes on while it is backed up
            left_before.append(len(site.everything_sent()))

    inventory = writing.write_backup(load_settings(site.paths.root), tmp_path / "b", KEY, told=told).inventory
    assert inventory.egress.number == left_before[0]


def head(number: int, chain: str = "c") -> Head:
    return Head(number=number, chain=f"{chain}{number}")


@pytest.mark.parametrize(
    ("ledger", "egress", "ledger_then", "egress_then", "word"),
    [
        (2, 5, "c2", "c5", None), (2, 6, "c2", "c5", "newer: 1 more"), (3, 5, "c2", "c5", "and 1 more"),
        (2, 5, "c2", "x5", "others"), (2, 4, "c2", None, "others"),
    ],
)  # fmt: skip
def test_only_the_same_state_is_replaced_without_force(
    ledger: int, egress: int, ledger_then: str, egress_then: str | None, word: str | None
) -> None:
    inventory = Inventory(site="st-anna", made_at="", ledger=head(2), egress=head(5))
    found = objection_to(inventory, Standing(head(ledger), head(egress), ledger_then, egress_then))
    assert (found is None) if word is None else word in (found or "")


@pytest.mark.parametrize("name", ["../x", "gate/../../x", "/etc/passwd", "mark/egress.json", "gate//x", "gate\\x", ""])
def test_a_name_out_of_the_site_is_not_written(name: str) -> None:
    assert not is_allowed(name)


def test_the_commands_take_a_passphrase_and_tell_what_is_wrong(
    site: GatedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_node.backup.sealed_file.SCRYPT_COST", 2)
    monkeypatch.setenv("WARDROUND_BACKUP_PASSPHRASE", "correct horse battery")
    (tmp_path / "safe").mkdir()
    assert run("backup", site.paths.root, tmp_path / "safe")[0] == 0
    (made,) = (tmp_path / "safe").iterdir()
    assert made.name.startswith("st-anna-")
    shown = json.loads(run("restore", site.paths.root, made, "--check", "--json")[1])
    assert shown["site"] == "st-anna"
    assert run("backup", site.paths.root, made)[0] == 1  # it is there already
    assert "within the site" in run("backup", site.paths.root, site.paths.root / "b")[1]
    assert "no folder" in run("backup", site.paths.root, tmp_path / "nowhere" / "b")[1]
    monkeypatch.setenv("WARDROUND_BACKUP_PASSPHRASE", "another horse battery")
    status, output = run("restore", site.paths.root, made)
    assert (status, "another than" in output) == (1, True)
    monkeypatch.setenv("WARDROUND_BACKUP_PASSPHRASE", "short")
    assert "fewer than 12" in run("backup", site.paths.root, tmp_path / "c")[1]
