"""The ledger's heads as the hub has countersigned them: told after each charge, compared before anything is spent.

A restored backup of the gate's database would hand budgets back. The hub keeps the head of each charge and names the
last one in every proposal and task; a ledger that does not hold it is *behind*: nothing is spent until the hub has sent
the site's own signed charges (`LedgerRecord`) and the administrator has charged what is missing to every patient.

Tables: `told_heads` what was told, in order; `hub_heads` what the hub has named; `hub_charges` what it has sent back.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.message import Message
from protocol.messages import LedgerCharge, LedgerHead, LedgerRecord, Reason, expect
from protocol.signing import PublicKey, open_envelope
from site_node.errors import GateError
from site_node.governance import hash_chain
from site_node.governance.context import GateContext
from site_node.governance.ledger_entries import (
    DismissedEntry,
    GapEntry,
    Group,
    LedgerEntry,
    RestatedEntry,
    append_entry,
    ledger_entries,
)
from site_node.governance.policy import Objection
from site_node.governance.reasons import sentence_of
from site_node.sqlite import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS told_heads (
    position INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL, chain TEXT NOT NULL, study TEXT,
    egress INTEGER);
CREATE TABLE IF NOT EXISTS hub_heads (number INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (number, chain));
CREATE TABLE IF NOT EXISTS hub_charges (
    position INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS dismissed_heads (
    number INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (number, chain));
CREATE TABLE IF NOT EXISTS reconciled (number INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (number, chain));
"""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Gap:
    """What the hub has countersigned and the ledger does not hold; `unexplained` heads came without their charges."""

    charges: tuple[LedgerCharge, ...]
    unexplained: tuple[LedgerHead, ...]

    def __bool__(self) -> bool:
        """Tell whether anything is missing."""
        return bool(self.charges or self.unexplained)


def tell_charge(context: GateContext, site: str, entries: Sequence[LedgerEntry]) -> None:
    """Tell the hub of a study's charge, if it is one. Call within the transaction that appended the entries.

    That patients are held out un-noised spends nothing that could be handed back: it is noted here and not told.
    """
    database = context.database
    if not any(entry.event is not None or entry.patients == "training" for entry in entries):
        return
    number, chain = hash_chain.head(database, "ledger")
    message = _message(database, site, entries, LedgerHead(number=number, chain=chain))
    egress = context.send(message)
    database.execute(
        "INSERT INTO told_heads (number, chain, study, egress) VALUES (?, ?, ?, ?)",
        (number, chain, entries[0].study_digest, egress),
    )


def note_head(database: sqlite3.Connection, head: LedgerHead | None) -> None:
    """Keep a head that the hub has named. Call within a transaction."""
    if head is not None:
        database.execute("INSERT OR IGNORE INTO hub_heads VALUES (?, ?)", (head.number, head.chain))


def is_behind(database: sqlite3.Connection) -> bool:
    """Tell whether the hub has countersigned a state of the ledger that this ledger neither holds nor has made up."""
    return bool(_missing_heads(database))


def behind_objection(database: sqlite3.Connection) -> Objection | None:
    """Return why nothing may be spent now, or None."""
    if not is_behind(database):
        return None
    return Objection(Reason.LEDGER_BEHIND, sentence_of(Reason.LEDGER_BEHIND))


def keep_record(context: GateContext, record: LedgerRecord) -> str:
    """Keep the charges that the hub has sent back, if this site signed them. Call within a transaction."""
    for text in record.charges:
        try:
            keep_charge(context.database, text.encode(), context.key.public, context.settings.name)
        except GateError as error:
            _log.error("ledger_record_refused", why=str(error))
            return "refused"
    return "ledger record"


def keep_charge(database: sqlite3.Connection, envelope: bytes, key: PublicKey, site: str) -> None:
    """Keep a charge that came back, with its head. Call within a transaction.

    Raises: GateError if this site did not sign it.
    """
    charge = own_charge(envelope, key, site)
    database.execute(
        "INSERT OR IGNORE INTO hub_charges (digest, envelope) VALUES (?, ?)", (digest_of_bytes(envelope), envelope)
    )
    note_head(database, charge.head)
    # what was dismissed for want of proof is proven now
    database.execute("DELETE FROM dismissed_heads WHERE number = ? AND chain = ?", (charge.number, charge.chain))


def dismiss_unproven(database: sqlite3.Connection, gap: Gap) -> None:
    """Let the heads not count that the hub named without a charge of ours. Call within a transaction.

    Guarantee: the ledger has an entry for each; a head whose signed charge comes later counts again.
    """
    for head in gap.unexplained:
        append_entry(database, DismissedEntry(head=head))
        database.execute("INSERT OR IGNORE INTO dismissed_heads VALUES (?, ?)", (head.number, head.chain))


def own_charge(envelope: bytes, key: PublicKey, site: str) -> LedgerCharge:
    """Return the charge in an envelope that this site signed.

    Raises: GateError if it did not.
    """
    try:
        charge = expect(open_envelope(envelope, key), LedgerCharge)
    except ProtocolError as error:
        raise GateError("The hub sent a charge that this site has not signed.", "Ask the hub's operator.") from error
    if charge.site != site:
        raise GateError("The hub sent the charge of another site.", "Ask the hub's operator.")
    return charge


def gap_of(database: sqlite3.Connection, key: PublicKey, site: str) -> Gap:
    """Return what the ledger lacks, as this site once signed it."""
    missing = set(_missing_heads(database))
    rows = database.execute("SELECT envelope FROM hub_charges ORDER BY position")
    kept = [own_charge(row["envelope"], key, site) for row in rows]
    charges = sorted((c for c in kept if (c.number, c.chain) in missing), key=lambda c: c.number)
    explained = {(charge.number, charge.chain) for charge in charges}
    unexplained = [LedgerHead(number=n, chain=c) for n, c in sorted(missing - explained)]
    return Gap(tuple(charges), tuple(unexplained))


def charge_gap(database: sqlite3.Connection, gap: Gap) -> int:
    """Charge a gap to every patient of the site and return the number of charges. Call within a transaction.

    Raises: GateError if the hub has not sent all charges yet: what is not known cannot be charged.
    """
    if gap.unexplained:
        raise GateError(
            "The hub has countersigned charges that it has not sent yet.",
            "Let gate and agent run, and try again when the hub's mail has come. If it never comes, ask the hub's "
            "operator; what the hub cannot show, `--dismiss-unproven` sets aside.",
        )
    for charge in gap.charges:
        append_entry(
            database,
            GapEntry(
                study_digest=charge.study_digest,
                head=charge.head,
                delta=charge.delta,
                charged=dict(charge.charged),
                unprotected=charge.unprotected,
            ),
        )
        database.execute("INSERT OR IGNORE INTO reconciled VALUES (?, ?)", (charge.number, charge.chain))
    if gap.charges:
        last = _last_of(gap.charges)
        database.execute("INSERT INTO told_heads (number, chain) VALUES (?, ?)", (last.number, last.chain))
    return len(gap.charges)


def restate_refused(context: GateContext) -> int:
    """After a gap was charged, tell the hub again what it had refused because of it; return how many charges."""
    if is_behind(context.database):
        return 0
    studies = _refused_studies(context.database)
    for study in studies:
        with transaction(context.database) as database:
            append_entry(database, RestatedEntry(study_digest=study))
            tell_charge(
                context, context.settings.name, [e for e in ledger_entries(database) if e.study_digest == study]
            )
        context.checkpoint("charge restated")
        _log.info("charge_told_again", study=study)
    return len(studies)


def countersigned(database: sqlite3.Connection) -> list[dict[str, object]]:
    """Return every head that was told to the hub, with the answer: true, false, or null while there is none."""
    rows = database.execute(
        "SELECT told_heads.number AS number, chain, study, accepted FROM told_heads "
        "LEFT JOIN receipts ON receipts.number = told_heads.egress WHERE egress IS NOT NULL ORDER BY position"
    )
    return [
        {
            "number": row["number"],
            "chain": row["chain"],
            "study_digest": row["study"],
            "countersigned": None if row["accepted"] is None else bool(row["accepted"]),
        }
        for row in rows
    ]


def _message(database: sqlite3.Connection, site: str, entries: Sequence[LedgerEntry], head: LedgerHead) -> Message:
    groups: tuple[Group, ...] = ("training", "held-out")
    charged = {
        group: [e.event for e in entries if e.patients == group and e.event is not None]
        for group in groups
        if any(e.patients == group and e.event is not None for e in entries)
    }
    last = database.execute("SELECT number, chain FROM told_heads ORDER BY position DESC LIMIT 1").fetchone()
    return LedgerCharge(
        site=site,
        study_digest=entries[0].study_digest,
        number=head.number,
        chain=head.chain,
        follows=None if last is None else LedgerHead(number=last["number"], chain=last["chain"]),
        delta=entries[0].delta,
        charged=charged,
        unprotected=any(e.event is None and e.patients == "training" for e in entries),
    )


def _missing_heads(database: sqlite3.Connection) -> list[tuple[int, str]]:
    rows = database.execute(
        "SELECT number, chain FROM hub_heads AS hub "
        "WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.number = hub.number AND ledger.chain = hub.chain) "
        "AND NOT EXISTS (SELECT 1 FROM reconciled AS r WHERE r.number = hub.number AND r.chain = hub.chain) "
        "AND NOT EXISTS (SELECT 1 FROM dismissed_heads AS d WHERE d.number = hub.number AND d.chain = hub.chain)"
    )
    return [(row["number"], row["chain"]) for row in rows]


def _refused_studies(database: sqlite3.Connection) -> list[str]:
    rows = database.execute(
        "SELECT study FROM told_heads JOIN receipts ON receipts.number = told_heads.egress "
        "WHERE accepted = 0 AND position = (SELECT MAX(position) FROM told_heads AS later "
        "WHERE later.study = told_heads.study) "
        "AND position < (SELECT MAX(position) FROM told_heads WHERE egress IS NULL) ORDER BY position"
    )
    return [row["study"] for row in rows]


def _last_of(charges: Sequence[LedgerCharge]) -> LedgerHead:
    """Return the head that no other charge of the gap follows: where the hub stands."""
    followed = {charge.follows.chain for charge in charges if charge.follows is not None}
    ends = [charge for charge in charges if charge.chain not in followed]
    return (ends or list(charges))[-1].head
