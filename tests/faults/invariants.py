"""What must hold after any fault, read from outside: from the hub's database, and from the hospitals' own."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from hub.audit.verify import read_sqlite, verify_entries
from protocol.signing import read_unverified


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
    """No hospital has let more out than it was charged for, and the hub holds a charge for each of its studies."""
    for name, folder in sites.items():
        gate = folder / "gate" / "gate.sqlite"
        left = rows(gate, "SELECT study, COUNT(*) FROM outputs WHERE kind = 'train' GROUP BY study")
        assert left, f"nothing left {name}"
        assert all(count <= rounds for _, count in left)
        charged = {study for (study,) in rows(hub, "SELECT study FROM ledger_charges WHERE site = ?", name)}
        own = _studies_charged_at(gate)
        assert {study for study, _ in left} <= charged & own


def _studies_charged_at(gate: Path) -> set[str]:
    entries = [json.loads(bytes(entry)) for (entry,) in rows(gate, "SELECT entry FROM ledger")]
    return {str(entry["study_digest"]) for entry in entries if "event" in entry}


def assert_egress_verified(sites: Collection[Path]) -> None:
    """Each hospital's list of what left is whole and signed for by the hub."""
    for folder in sites:
        command = [sys.executable, "-m", "compose.cli", "site", "egress", str(folder), "--verify"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def assert_audit_whole(hub: Path) -> None:
    """The hub's audit log still holds together."""
    assert verify_entries(read_sqlite(hub)).ok
