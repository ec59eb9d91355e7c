"""A hospital's gate.sqlite is restored from mid-study, and the hub lies: no second output leaves, no second reveal.

The hub, four other hospitals and their masks are real; what the lying hub says besides is signed with its own key.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from protocol.message import Message
from protocol.messages import RoundTask, UpdateNotice, parse_message
from protocol.secure_messages import MaskingReveal, MaskingSurvivors, SurvivorsSeen, digest_of_names
from protocol.signing import read_unverified, sign
from site_node.cli import app
from site_node.durable import write_durably
from site_node.governance.gate import Gate
from site_node.governance.records import open_records, task_records
from tests.fakes.handing_site import HandingSite
from tests.federation.masked_federation import NAMES, MaskedFederation, masked_federation, moved

FEWER = [name for name in NAMES[:5] if name != "bela"]
LETTERS_LATER = 9_000


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path, rounds=2) as opened:
        opened.propose()
        yield opened


def back_up(site: HandingSite, target: Path) -> None:
    source = site.settings.paths.gate_database
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def restore(site: HandingSite, backup: Path, *, marked: bool = True) -> None:
    """Put an old database back, without the letters since; the mark stays, or it is as if there had been none."""
    paths = site.settings.paths
    site.gate.close()
    for path in paths.gate.glob("gate.sqlite*"):
        path.unlink()
    shutil.copy(backup, paths.gate_database)
    if not marked:
        with closing(sqlite3.connect(paths.gate_database, isolation_level=None)) as database:
            database.execute("DELETE FROM switches WHERE name = 'marked'")
    with closing(sqlite3.connect(paths.gate_database)) as database:
        read = {number for (number,) in database.execute("SELECT number FROM mail")}
    for path in paths.inbox.glob("*.dsse.json"):
        if int(path.name.split(".")[0]) not in read:
            path.unlink()
    site.gate = Gate(site.settings)


def left(site: HandingSite) -> list[Message]:
    """Return all that the gate's database knows to have left."""
    rows = open_records(site.settings.paths).execute("SELECT envelope FROM envelopes ORDER BY number")
    return [parse_message(read_unverified(row["envelope"])) for row in rows]


def lie(federation: MaskedFederation, site: HandingSite, *messages: Message) -> None:
    """Put letters of the hub into a site's inbox that the honest hub would never write; let the gate read them."""
    for message in messages:
        number = LETTERS_LATER + sum(1 for _ in site.settings.paths.inbox.glob("*.dsse.json"))
        envelope = sign(message.canonical_bytes(), federation.services.key)
        write_durably(site.settings.paths.inbox / f"{number:016d}.dsse.json", envelope)
        for _ in range(5):
            site.gate.sweep()
            for task_id in [path.stem for path in site.settings.paths.orders.glob("*.json")]:
                site.work(task_id)
        site.gate.sweep()


def first_task(site: HandingSite) -> RoundTask:
    tasks = task_records(open_records(site.settings.paths), "waiting", "accepted", "answered", "refused", "cancelled")
    return next(record.task for record in tasks if (record.task.kind, record.task.round) == ("train", 1))


def told(messages: list[Message]) -> dict[str, set[Any]]:
    """Return what was let out of round 1: digests of masked vectors, signed lists of survivors, and reveals."""
    return {
        "vectors": {m.payload_digest for m in messages if isinstance(m, UpdateNotice) and m.round == 1},
        "lists": {m.survivors_digest for m in messages if isinstance(m, SurvivorsSeen) and m.round == 1},
        "reveals": {m.digest for m in messages if isinstance(m, MaskingReveal) and m.round == 1},
    }


def two_lives(
    federation: MaskedFederation, phase: str, backup: Path, *, reconciled: bool = False, marked: bool = True
) -> dict[str, set[Any]]:
    """Restore a site's gate as it was in a phase of round 1, lie to it, and return what both its lives let out."""
    clara = federation.site("clara")
    federation.until(phase)
    back_up(clara, backup)
    federation.until_round(2, "keys")  # round 1 is over: its sum was opened
    first_life, asked = left(clara), first_task(clara)
    assert all(len(found) == 1 for found in told(first_life).values())
    roster_digest = next(message.roster_digest for message in first_life if isinstance(message, MaskingReveal))
    if not marked:
        shutil.rmtree(clara.settings.paths.mark)
    restore(clara, backup, marked=marked)
    if reconciled:
        done = CliRunner().invoke(app, ["reconcile", str(clara.settings.paths.root), "--yes"])
        assert done.exit_code == 0, done.output
    clara.trained = lambda number: moved(4711 + number)  # whatever is computed now is another update
    fewer = MaskingSurvivors(
        study_digest=federation.study.digest, round=1, task_kind="train", roster_digest=roster_digest, survivors=FEWER
    )
    lie(federation, clara, fewer, asked.model_copy(update={"task_id": "another-task", "deadline_seconds": 61.0}))
    federation.rest()
    return told([*first_life, *left(clara)])


@pytest.mark.parametrize("phase", ["keys", "shares", "uploads", "seen"])
@pytest.mark.parametrize("reconciled", [False, True], ids=["before-reconcile", "after-reconcile"])
def test_a_restored_gate_answers_no_round_twice_and_reveals_no_second_time(
    federation: MaskedFederation, tmp_path: Path, phase: str, reconciled: bool
) -> None:
    both = two_lives(federation, phase, tmp_path / "backup.sqlite", reconciled=reconciled)
    assert {what: len(found) for what, found in both.items()} == {"vectors": 1, "lists": 1, "reveals": 1}
    assert digest_of_names(FEWER) not in both["lists"]


def test_without_the_mark_the_same_lie_would_be_believed(federation: MaskedFederation, tmp_path: Path) -> None:
    """The mark was restored too: what `wardround site reconcile --whole-site` is for."""
    both = two_lives(federation, "seen", tmp_path / "backup.sqlite", marked=False)
    assert digest_of_names(FEWER) in both["lists"]
    assert len(both["lists"]) == 2


def test_the_others_go_on_without_the_site_that_was_restored(federation: MaskedFederation, tmp_path: Path) -> None:
    clara = federation.site("clara")
    federation.until("uploads")
    back_up(clara, tmp_path / "backup.sqlite")
    federation.until_round(2, "keys")
    restore(clara, tmp_path / "backup.sqlite")
    done = CliRunner().invoke(app, ["reconcile", str(clara.settings.paths.root), "--yes"])
    assert done.exit_code == 0, done.output
    federation.rest()
    federation.pass_time(7200.0)
    assert federation.state()[0] == "completed", federation.state()
