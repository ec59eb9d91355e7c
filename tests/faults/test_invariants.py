"""The faults' invariants see what they are there to see: made-up databases, right and wrong."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import LedgerCharge, LedgerHead
from protocol.privacy_accounting import training_event
from protocol.signing import SigningKey, sign
from protocol.study import StudySpec, parse_study
from tests.faults.invariants import assert_ledgers_cover_what_left

ROUNDS, STEPS = 3, 4
INSERTS = {
    "outputs": "INSERT INTO outputs VALUES (?, ?)",
    "ledger": "INSERT INTO ledger VALUES (?)",
    "studies": "INSERT INTO studies VALUES (?, ?)",
    "ledger_charges": "INSERT INTO ledger_charges VALUES (?, ?, ?)",
}
CHAIN = "sha256:" + "c" * 64


def study_of(epsilon: float | None) -> StudySpec:
    return parse_study(
        {
            "name": "tiny",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "training": {"local_steps": STEPS},
            "rounds": ROUNDS,
            "participants": {"training_patients": 40},
            "privacy": {"epsilon": epsilon, "delta": 1e-3},
        }
    )


def written(path: Path, tables: dict[str, tuple[str, list[tuple[Any, ...]]]]) -> Path:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database, database:
        for name, (columns, lines) in tables.items():
            database.execute(f"CREATE TABLE {name} ({columns})")
            for line in lines:
                database.execute(INSERTS[name], line)
    return path


def checked(folder: Path, study: StudySpec, *, left: int, own: int, at_hub: int) -> None:
    """Check a hospital that let so many updates out, its ledger and the hub's record charged for so many tasks."""
    is_private = study.privacy.epsilon is not None
    event = training_event(study, 2.0, own).model_dump(mode="json") if is_private else None
    entry = {"study_digest": study.digest, "patients": "training", "event": event}
    charge = LedgerCharge(
        site="north",
        study_digest=study.digest,
        number=1,
        chain=CHAIN,
        follows=LedgerHead(number=0, chain=CHAIN),
        delta=1e-3,
        charged={"training": [training_event(study, 2.0, at_hub)]} if is_private else {},
        unprotected=not is_private,
    )
    outputs = [(study.digest, "train")] * left
    written(
        folder / "north" / "gate" / "gate.sqlite",
        {"outputs": ("study, kind", outputs), "ledger": ("entry", [(json.dumps(entry).encode(),)])},
    )
    hub = written(
        folder / "hub" / "hub.sqlite",
        {
            "studies": ("digest, specification", [(study.digest, study.canonical_bytes())]),
            "ledger_charges": ("study, site, envelope", [(study.digest, "north", sign_charge(charge))]),
        },
    )
    assert_ledgers_cover_what_left(hub, {"north": folder / "north"}, ROUNDS)


def sign_charge(charge: LedgerCharge) -> bytes:
    return sign(charge.canonical_bytes(), SigningKey.generate())


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_what_was_charged_for_may_leave(tmp_path: Path, epsilon: float | None) -> None:
    checked(tmp_path, study_of(epsilon), left=ROUNDS, own=ROUNDS, at_hub=ROUNDS)


@pytest.mark.parametrize(("own", "at_hub"), [(2, 3), (3, 2)])
def test_an_update_more_than_was_charged_for_is_seen(tmp_path: Path, own: int, at_hub: int) -> None:
    with pytest.raises(AssertionError, match="north let more out than it was charged for"):
        checked(tmp_path, study_of(8.0), left=ROUNDS, own=own, at_hub=at_hub)
