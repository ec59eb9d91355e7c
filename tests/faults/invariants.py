"""What must hold after any fault, read from outside: from the hub's database, and from the hospitals' own."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from hub.audit.verify import read_sqlite, verify_entries
from protocol.messages import LedgerCharge, expect
from protocol.privacy_accounting import training_event
from protocol.signing import read_unverified
from protocol.study import StudySpec, parse_study


def rows(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Read a SQLite database from beside the process that has it."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as opened:
        return opened.execute(query, values).fetchall()


def assert_counted_once(hub: Path) -> None:
    """Every accepted update is in exactly one version, and nothing else is in any."""
    accepted = rows(hub, "SELECT study, round, site FROM updates WHERE round > 0")
    assert len(accepted) == len(set(accepted))
    counted = [
        (study, number, part["site"])
        for study, number, envelope in rows(hub, "SELECT study, number, lineage FROM versions WHERE number > 0")
        for part in json.loads(read_unverified(envelope))["participants"]
    ]
    assert sorted(counted) == sorted(accepted)


def assert_versions_whole(hub: Path, rounds: int) -> None:
    """Each study has each of its versions, and each once."""
    studies = [digest for (digest,) in rows(hub, "SELECT digest FROM studies")]
    found = Counter(rows(hub, "SELECT study, number FROM versions"))
    assert found == Counter((digest, number) for digest in studies for number in range(rounds + 1))


def assert_ledgers_cover_what_left(hub: Path, sites: Mapping[str, Path], rounds: int) -> None:
    """No hospital has let more out than it was charged for, by its own ledger and by the charges that the hub holds.

    What left is counted in the mechanism's uses, as the charged events count them; a study without noise is charged
    without a number.
    """
    studies = {digest: _study_in(text) for digest, text in rows(hub, "SELECT digest, specification FROM studies")}
    for name, folder in sites.items():
        gate = folder / "gate" / "gate.sqlite"
        left = rows(gate, "SELECT study, COUNT(*) FROM outputs WHERE kind = 'train' GROUP BY study")
        assert left, f"nothing left {name}"
        assert all(count <= rounds for _, count in left)
        own, at_hub = _charged_at(gate), _charged_with(hub, name)
        for study, count in left:
            used = training_event(studies[study], 1.0, count)
            for charged in (own, at_hub):
                assert study in charged, f"{name} was not charged for what left"
                if studies[study].privacy.epsilon is not None:
                    assert used.count <= charged[study][used.mechanism], f"{name} let more out than it was charged for"


def _study_in(text: str | bytes) -> StudySpec:
    return parse_study(json.loads(text))


def _charged_at(gate: Path) -> dict[str, Counter[str]]:
    """Return of each study how often the hospital's own ledger charges each mechanism to who trains."""
    charged: dict[str, Counter[str]] = defaultdict(Counter)
    for (text,) in rows(gate, "SELECT entry FROM ledger"):
        entry = json.loads(bytes(text))
        if entry.get("patients") == "training":
            event = entry["event"] or {"mechanism": "none", "count": 0}
            charged[entry["study_digest"]][event["mechanism"]] += event["count"]
    return charged


def _charged_with(hub: Path, site: str) -> dict[str, Counter[str]]:
    """Return the same of the charges that the hospital has signed and the hub holds."""
    charged: dict[str, Counter[str]] = defaultdict(Counter)
    for study, envelope in rows(hub, "SELECT study, envelope FROM ledger_charges WHERE site = ?", site):
        counts = charged[study]
        for event in expect(read_unverified(envelope), LedgerCharge).charged.get("training", []):
            counts[event.mechanism] += event.count
    return charged


def assert_egress_verified(sites: Collection[Path]) -> None:
    """Each hospital's list of what left is whole and signed for by the hub."""
    for folder in sites:
        command = [sys.executable, "-m", "compose.cli", "site", "egress", str(folder), "--verify"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def assert_audit_whole(hub: Path) -> None:
    """The hub's audit log still holds together."""
    assert verify_entries(read_sqlite(hub)).ok
