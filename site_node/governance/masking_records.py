"""What the gate remembers of masked rounds: phase, secrets until they are erased, and the hub's messages.

Triggers keep the promises that a crash or a fault of this program could break: a roster, a delivery and a list of
survivors are set once; secrets are erased, never exchanged; what has revealed or ended does nothing more.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protocol.errors import MaskingError
from protocol.homomorphic_messages import DecryptionRequest
from protocol.message import Message
from protocol.messages import RoundTask, expect
from protocol.secure_aggregation.phases import SiteEvent, SitePhase, next_site_phase
from protocol.secure_messages import MaskedKind, MaskingDelivery, MaskingProof, MaskingRoster, MaskingSurvivors

MailKind = Literal["roster", "delivery", "survivors", "proof", "request"]
MAIL_KINDS: dict[type[Message], MailKind] = {
    MaskingRoster: "roster",
    MaskingDelivery: "delivery",
    MaskingSurvivors: "survivors",
    MaskingProof: "proof",
    DecryptionRequest: "request",
}
OPEN_PHASES = (SitePhase.KEYED, SitePhase.SHARED, SitePhase.MASKED, SitePhase.SEEN)
_ONCE = "".join(
    f"CREATE TRIGGER IF NOT EXISTS masking_one_{column} BEFORE UPDATE ON masking WHEN OLD.{column} IS NOT NULL "
    f"AND NEW.{column} IS NOT OLD.{column} BEGIN SELECT RAISE(ABORT, 'one {column}'); END;\n"
    for column in ("roster", "delivery", "survivors")
)
_ERASED_ONLY = "".join(
    f"CREATE TRIGGER IF NOT EXISTS masking_keeps_{column} BEFORE UPDATE ON masking WHEN NEW.{column} IS NOT NULL "
    f"AND NEW.{column} IS NOT OLD.{column} AND {when} BEGIN SELECT RAISE(ABORT, 'one {column}'); END;\n"
    for column, when in (
        ("channel_key", "1"),
        ("mask_key", "1"),
        ("seed", "1"),
        ("own_shares", "OLD.phase != 'keyed'"),
    )
)
MASKING_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS masking (
    study TEXT NOT NULL, round INTEGER NOT NULL, task_kind TEXT NOT NULL, task_id TEXT NOT NULL, phase TEXT NOT NULL,
    channel_key BLOB, mask_key BLOB, seed BLOB, own_shares TEXT,
    roster BLOB, delivery BLOB, survivors TEXT,
    PRIMARY KEY (study, round, task_kind));
CREATE TABLE IF NOT EXISTS masking_mail (
    study TEXT NOT NULL, round INTEGER NOT NULL, task_kind TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (study, round, task_kind, kind));
{_ONCE}{_ERASED_ONLY}
CREATE TRIGGER IF NOT EXISTS masking_ends BEFORE UPDATE ON masking WHEN OLD.phase IN ('revealed', 'ended')
    AND NEW.phase IS NOT OLD.phase BEGIN SELECT RAISE(ABORT, 'the round is over'); END;
CREATE TRIGGER IF NOT EXISTS masking_stays BEFORE DELETE ON masking BEGIN SELECT RAISE(ABORT, 'kept'); END;
"""


@dataclass(frozen=True)
class MaskedRound:
    """One round's masks at this site. The secrets are None once they are erased."""

    study: str
    round: int
    task_kind: MaskedKind
    task_id: str
    phase: SitePhase
    channel_key: bytes | None
    mask_key: bytes | None
    seed: bytes | None
    own_shares: tuple[bytes, bytes] | None
    """This site's own shares of its own seed and mask key."""
    roster: bytes | None
    delivery: bytes | None
    survivors: tuple[str, ...] | None

    def __repr__(self) -> str:
        return f"MaskedRound(task_id={self.task_id!r}, phase={self.phase.value!r})"


def add_round(
    database: sqlite3.Connection,
    study: str,
    number: int,
    task_kind: MaskedKind,
    task_id: str,
    secrets: tuple[bytes, bytes, bytes],
) -> None:
    """Keep a new round's channel key, mask key and seed. Call within a transaction."""
    database.execute(
        "INSERT INTO masking (study, round, task_kind, task_id, phase, channel_key, mask_key, seed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (study, number, task_kind, task_id, SitePhase.KEYED.value, *secrets),
    )


def masked_round(
    database: sqlite3.Connection, study: str, number: int, task_kind: MaskedKind = "train"
) -> MaskedRound | None:
    """Return the masks of a round's task, or None if the site has none."""
    row = database.execute(
        "SELECT * FROM masking WHERE study = ? AND round = ? AND task_kind = ?", (study, number, task_kind)
    ).fetchone()
    return None if row is None else _round(row)


def open_rounds(database: sqlite3.Connection, study: str | None = None) -> list[MaskedRound]:
    """Return the rounds that may still go on, of one study or of all."""
    marks = ", ".join("?" * len(OPEN_PHASES))
    rows = database.execute(f"SELECT * FROM masking WHERE phase IN ({marks}) ORDER BY study, round", OPEN_PHASES)  # noqa: S608
    return [_round(row) for row in rows if study in (None, row["study"])]


def helped_to_open(
    database: sqlite3.Connection, task: RoundTask, task_kind: MaskedKind, *, is_encrypted: bool = False
) -> bool:
    """Tell whether this site helped to open another round's sum of this kind over the weights that a task names.

    A sum over the same weights with one site less would give that site's part as the difference. No site alone need
    see it: both sums are opened by more than two thirds of the members, so that honest ones would have opened both.
    An encrypted sum is opened by two of them, on the word of more than two thirds that they have seen who is in it; who
    gave that word cannot know whether it was opened, and takes it that it was.
    """
    rows = database.execute(
        "SELECT tasks.message FROM masking JOIN tasks ON tasks.task_id = masking.task_id "
        "WHERE masking.study = ? AND masking.task_kind = ? AND masking.round != ? "
        "AND CASE ? WHEN 1 THEN masking.survivors IS NOT NULL ELSE masking.phase = ? END",
        (task.study_digest, task_kind, task.round, int(is_encrypted), SitePhase.REVEALED.value),
    )
    bases = [expect(bytes(row["message"]), RoundTask).base for row in rows]
    return task.base is not None and task.base.weights_digest in [base.weights_digest for base in bases if base]


def move(
    database: sqlite3.Connection,
    known: MaskedRound,
    event: SiteEvent,
    *,
    roster: bytes | None = None,
    delivery: bytes | None = None,
    survivors: Sequence[str] | None = None,
    own_shares: tuple[bytes, bytes] | None = None,
) -> SitePhase:
    """Move a round by an event and keep what came with it. Call within a transaction.

    Raises: MaskingError if the event is not legal in the phase that the database holds.
    """
    row = masked_round(database, known.study, known.round, known.task_kind)
    if row is None:
        raise MaskingError("The masked round is not known.")
    phase = next_site_phase(row.phase, event)
    kept = {
        "roster": roster,
        "delivery": delivery,
        "survivors": None if survivors is None else json.dumps(list(survivors)),
        "own_shares": None if own_shares is None else json.dumps([share.hex() for share in own_shares]),
    }
    new = {name: value for name, value in kept.items() if value is not None}
    assignments = "".join(f", {name} = ?" for name in new)
    database.execute(
        f"UPDATE masking SET phase = ?{assignments} WHERE study = ? AND round = ? AND task_kind = ?",  # noqa: S608 - our own names
        (phase.value, *new.values(), known.study, known.round, known.task_kind),
    )
    return phase


def erase_mask_secrets(database: sqlite3.Connection, known: MaskedRound) -> None:
    """Erase what made the masks, once the masked vector is recorded. Call within a transaction."""
    database.execute(
        "UPDATE masking SET mask_key = NULL, seed = NULL WHERE study = ? AND round = ? AND task_kind = ?",
        (known.study, known.round, known.task_kind),
    )


def erase_secrets(database: sqlite3.Connection, known: MaskedRound) -> None:
    """Erase all secrets of a round and its mail. Call within a transaction."""
    database.execute(
        "UPDATE masking SET channel_key = NULL, mask_key = NULL, seed = NULL, own_shares = NULL "
        "WHERE study = ? AND round = ? AND task_kind = ?",
        (known.study, known.round, known.task_kind),
    )
    database.execute(
        "DELETE FROM masking_mail WHERE study = ? AND round = ? AND task_kind = ?",
        (known.study, known.round, known.task_kind),
    )


def end_masked_rounds(copy: Path) -> None:
    """End every round that could go on in a copy of the gate's database, and erase its secrets there.

    Guarantee: they are written over in the file, and no journal of what was erased lies beside it.
    """
    with closing(sqlite3.connect(copy, isolation_level=None)) as opened:
        if opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'masking'").fetchone() is None:
            return
        opened.execute("PRAGMA secure_delete = ON")
        opened.execute("PRAGMA journal_mode = MEMORY")
        marks = ", ".join("?" * len(OPEN_PHASES))
        opened.execute(
            f"UPDATE masking SET phase = '{SitePhase.ENDED}' WHERE phase IN ({marks})",  # noqa: S608
            OPEN_PHASES,
        )
        opened.execute("UPDATE masking SET channel_key = NULL, mask_key = NULL, seed = NULL, own_shares = NULL")
        opened.execute("DELETE FROM masking_mail")


def sweep_erased(database: sqlite3.Connection) -> None:
    """Write over what was erased on the disk too: the log of changes still holds it until it is copied back."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def keep_masking_mail(database: sqlite3.Connection, message: Message, body: bytes) -> str:
    """Keep a message of the hub for a round that goes on; the first of its kind stands. Call within a transaction."""
    if not isinstance(message, MaskingRoster | MaskingDelivery | MaskingSurvivors | MaskingProof | DecryptionRequest):
        return "ignored"
    task_kind: MaskedKind = "train" if isinstance(message, DecryptionRequest) else message.task_kind
    known = masked_round(database, message.study_digest, message.round, task_kind)
    if known is None or known.phase not in OPEN_PHASES:
        return "no such masked round"
    cursor = database.execute(
        "INSERT OR IGNORE INTO masking_mail VALUES (?, ?, ?, ?, ?)",
        (message.study_digest, message.round, task_kind, MAIL_KINDS[type(message)], body),
    )
    return "masking" if cursor.rowcount else "known"


def masking_mail(database: sqlite3.Connection, known: MaskedRound, kind: MailKind) -> bytes | None:
    """Return the hub's message of a kind for a round, or None if it has not come."""
    row = database.execute(
        "SELECT body FROM masking_mail WHERE study = ? AND round = ? AND task_kind = ? AND kind = ?",
        (known.study, known.round, known.task_kind, kind),
    ).fetchone()
    return None if row is None else bytes(row["body"])


def _round(row: sqlite3.Row) -> MaskedRound:
    shares, survivors = row["own_shares"], row["survivors"]
    return MaskedRound(
        study=row["study"],
        round=row["round"],
        task_kind=row["task_kind"],
        task_id=row["task_id"],
        phase=SitePhase(row["phase"]),
        channel_key=row["channel_key"],
        mask_key=row["mask_key"],
        seed=row["seed"],
        own_shares=None if shares is None else (bytes.fromhex((s := json.loads(shares))[0]), bytes.fromhex(s[1])),
        roster=row["roster"],
        delivery=row["delivery"],
        survivors=None if survivors is None else tuple(json.loads(survivors)),
    )
