"""The egress ledger: digest, size, kind, study, round and time of everything that leaves, written before it can.

`record` is called inside the transaction that makes the message final. Only messages of the protocol's site-to-hub
kinds can be recorded, so nothing else can ever get into the outbox.
"""

import sqlite3
from typing import Any

from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.message import Message
from protocol.messages import MAX_MESSAGE_BYTES, SITE_TO_HUB, EvaluationReport, Receipt, UpdateNotice, expect
from protocol.secure_messages import MaskedHistograms, MaskingReveal, MaskingShares, SurvivorsSeen
from protocol.signing import PublicKey, SigningKey, open_envelope, read_unverified, sign
from site_node.errors import GateError
from site_node.governance import hash_chain

TAKEN_BACK = "wardround.taken-back/1"
PAYLOAD_GONE = "wardround.payload-gone/1"
"""It was sent before a backup was restored that lacks the payload: not sent again, and the receipt is lost."""
RESULTS = {
    str(kind.model_fields["schema_"].default)
    for kind in (UpdateNotice, EvaluationReport, MaskedHistograms, MaskingShares, SurvivorsSeen, MaskingReveal)
}
"""What a withdrawal takes back. A masked round opens with enough shares and reveals: with fewer it fails."""


def record(database: sqlite3.Connection, message: Message, key: SigningKey, now: float) -> int:
    """Sign a message, append it to the ledger and return its number. Call within a transaction.

    Raises: GateError if the message is of a kind that may not leave, or too large.
    """
    if not isinstance(message, SITE_TO_HUB):
        raise GateError(f"A {type(message).__name__} may not leave.", "This is a fault of the software; report it.")
    body = message.canonical_bytes()
    if len(body) > MAX_MESSAGE_BYTES:
        raise GateError(f"A message holds at most {MAX_MESSAGE_BYTES} bytes.", "Evaluate fewer splits.")
    envelope = sign(body, key)
    document = message.model_dump(mode="json", by_alias=True)
    payload_digest = document.get("payload_digest")
    entry = {
        "schema": "wardround.egress-entry/1",
        "time": now,
        "kind": document["schema"],
        "study_digest": document.get("study_digest"),
        "round": document.get("round"),
        "task_id": document.get("task_id"),
        "message_digest": digest_of_bytes(body),
        "envelope_bytes": len(envelope),
        "payload_digest": payload_digest,
        "payload_bytes": document.get("payload_bytes", 0),
    }
    number = hash_chain.append(database, "egress", entry)
    database.execute("INSERT INTO envelopes VALUES (?, ?, ?)", (number, envelope, payload_digest))
    database.execute("INSERT INTO unsent VALUES (?, ?)", (number, payload_digest))
    return number


def take_back(database: sqlite3.Connection, study_digest: str, now: float) -> int:
    """Let a study's results that were not sent yet never leave; return how many. Call within a transaction.

    Results are updates, masked or not, evaluations, masked histograms, and this site's part in opening a masked sum:
    shares, its consent to the survivors, and reveals. The ledger keeps their entries and gains one
    for each that says it was taken back. What the agent is sending at this moment may still arrive: its receipt tells.
    """
    waiting = {row["number"] for row in database.execute("SELECT number FROM unsent")}
    entries = [entry for entry in hash_chain.entries(database, "egress") if entry["number"] in waiting]
    results = [entry for entry in entries if entry["kind"] in RESULTS and entry["study_digest"] == study_digest]
    for entry in results:
        set_aside(database, entry, now, TAKEN_BACK)
    return len(results)


def set_aside(database: sqlite3.Connection, entry: dict[str, Any], now: float, kind: str) -> None:
    """Note that what an entry names is not sent by this gate any more, and why. Call within a transaction."""
    same = {name: entry[name] for name in ("study_digest", "round", "task_id", "message_digest", "payload_digest")}
    note = {"schema": "wardround.egress-entry/1", "time": now, "kind": kind, **same, "takes_back": entry["number"]}
    hash_chain.append(database, "egress", {**note, "envelope_bytes": 0, "payload_bytes": 0})
    database.execute("DELETE FROM unsent WHERE number = ?", (entry["number"],))


def unsent(database: sqlite3.Connection) -> list[tuple[int, bytes, str | None]]:
    """Return (number, envelope, payload digest) of all that was recorded and not yet receipted, oldest first."""
    rows = database.execute(
        "SELECT number, envelope, envelopes.payload_digest FROM unsent JOIN envelopes USING (number) ORDER BY number"
    )
    return [(row["number"], row["envelope"], row["payload_digest"]) for row in rows]


def accept_receipt(database: sqlite3.Connection, number: int, envelope: bytes, hub_key: PublicKey) -> Receipt:
    """Check the hub's receipt against what was sent and keep it. Call within a transaction.

    Raises: GateError if it is not the hub's, or of another message.
    """
    row = database.execute("SELECT envelope FROM envelopes WHERE number = ?", (number,)).fetchone()
    try:
        receipt = expect(open_envelope(envelope, hub_key), Receipt)
    except ProtocolError as error:
        raise GateError("A receipt is not signed by the hub.", "The message is kept and sent again.") from error
    if row is None or receipt.message_digest != digest_of_bytes(read_unverified(row["envelope"])):
        raise GateError("A receipt is of another message.", "The message is kept and sent again.")
    database.execute(
        "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?)",
        (number, envelope, int(receipt.accepted), receipt.reason, receipt.received_at),
    )
    database.execute("DELETE FROM unsent WHERE number = ?", (number,))
    return receipt


def egress_entries(database: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return all that left or waits in the outbox, oldest first, each with the hub's answer if there is one."""
    answers = {
        row["number"]: row for row in database.execute("SELECT number, accepted, reason, received_at FROM receipts")
    }
    listed = []
    for entry in hash_chain.entries(database, "egress"):
        answer = answers.get(entry["number"])
        receipt = answer and {
            "accepted": bool(answer["accepted"]),
            "reason": answer["reason"],
            "received_at": answer["received_at"],
        }
        listed.append({**entry, "receipt": receipt})
    return listed


def without_receipt(database: sqlite3.Connection, now: float) -> list[dict[str, Any]]:
    """Return what the hub has not answered yet, oldest first: number, kind, and age in whole seconds."""
    listed = egress_entries(database)
    settled = {entry["takes_back"] for entry in listed if "takes_back" in entry}
    return [
        {"number": entry["number"], "kind": entry["kind"], "age_seconds": max(0, int(now - entry["time"]))}
        for entry in listed
        if entry["receipt"] is None and not {entry["number"], entry.get("takes_back")} & settled
    ]


def egress_export(database: sqlite3.Connection) -> dict[str, Any]:
    """Return the whole ledger with every signed envelope and receipt, so that somebody else can check it.

    Each entry's `chain` is recomputed from the entries before it; the hub's key is all that is needed besides.
    """
    number, head = hash_chain.verify(database, "egress")
    envelopes = {row["number"]: row["envelope"] for row in database.execute("SELECT number, envelope FROM envelopes")}
    receipts = {row["number"]: row["envelope"] for row in database.execute("SELECT number, envelope FROM receipts")}
    entries = [
        {
            "entry": entry,
            "envelope": envelopes[entry["number"]].decode() if entry["number"] in envelopes else None,
            "receipt": receipts[entry["number"]].decode() if entry["number"] in receipts else None,
        }
        for entry in hash_chain.entries(database, "egress")
    ]
    return {"schema": "wardround.egress-export/1", "number": number, "head": head, "entries": entries}


def faults_of(database: sqlite3.Connection, own_key: PublicKey) -> list[str]:
    """Return what does not fit together: envelopes that are not their entries', and what was sent without a receipt."""
    envelopes = {row["number"]: row["envelope"] for row in database.execute("SELECT number, envelope FROM envelopes")}
    waiting = {row["number"] for row in database.execute("SELECT number FROM unsent")}
    listed = egress_entries(database)
    aside = {entry["takes_back"] for entry in listed if "takes_back" in entry}
    faults = []
    for entry in (entry for entry in listed if "takes_back" not in entry):
        number = entry["number"]
        try:
            body = open_envelope(envelopes.get(number, b""), own_key)
        except ProtocolError:
            body = b""
        if digest_of_bytes(body) != entry["message_digest"]:
            faults.append(f"Entry {number}: the kept envelope is missing, or not the message that the entry names.")
        if entry["receipt"] is None and number not in waiting | aside:
            faults.append(f"Entry {number} was sent, and the hub's receipt is missing.")
    return faults


def verify_receipts(database: sqlite3.Connection, hub_key: PublicKey) -> int:
    """Check every kept receipt against the hub's key and the ledger's digest; return how many there are.

    Raises: GateError naming the first that does not fit.
    """
    digests = {entry["number"]: entry["message_digest"] for entry in hash_chain.entries(database, "egress")}
    rows = database.execute("SELECT number, envelope FROM receipts ORDER BY number").fetchall()
    for row in rows:
        try:
            receipt = expect(open_envelope(row["envelope"], hub_key), Receipt)
        except ProtocolError as error:
            raise GateError(f"The receipt of entry {row['number']} is not the hub's.", "Ask the hub.") from error
        if receipt.message_digest != digests.get(row["number"]):
            raise GateError(f"The receipt of entry {row['number']} is of another message.", "Ask the hub.")
    return len(rows)
