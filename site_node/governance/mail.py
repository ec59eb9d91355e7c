"""Mail from the hub: each envelope is checked once against the hub's key, and what it says is kept.

The agent only carries: it can lose, repeat or reorder mail, and nothing worse. Each message is safe to read again.
"""

from pathlib import Path

import structlog

from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.message import Message
from protocol.messages import LedgerRecord, RoundTask, StudyClosed, StudyProposal, TaskCancelled, parse_message
from protocol.signing import MAX_ENVELOPE_BYTES, open_envelope
from site_node.governance import high_water, proposals, spool
from site_node.governance.context import GateContext
from site_node.governance.ledger_heads import note_head
from site_node.governance.masking_records import keep_masking_mail
from site_node.governance.records import add_task, set_study, set_task, study_record, task_record
from site_node.sqlite import transaction

_log = structlog.get_logger()


def read_mail(context: GateContext) -> int:
    """Take in the mail that has come since the last pass; return how many messages."""
    read = {row["number"] for row in context.database.execute("SELECT number FROM mail")}
    new = [(number, path) for number, path in spool.received(context.paths.inbox) if number not in read]
    for number, path in new:
        _read_one(context, number, path)
        context.checkpoint("mail read")
    return len(new)


def _read_one(context: GateContext, number: int, path: Path) -> None:
    with path.open("rb") as file:
        envelope = file.read(MAX_ENVELOPE_BYTES + 1)
    try:
        body = open_envelope(envelope, context.hub_key)
        message = parse_message(body)
    except ProtocolError as error:
        _log.warning("mail_refused", number=number, why=str(error))
        with transaction(context.database):
            _note(context, number, envelope, "refused")
        return
    prepared = proposals.examine(context, message, body) if isinstance(message, StudyProposal) else None
    with transaction(context.database):
        outcome = proposals.keep(context, prepared) if prepared is not None else _keep(context, message, body)
        _note(context, number, envelope, outcome)
    _log.info("mail_read", number=number, kind=type(message).__name__, outcome=outcome)


def _note(context: GateContext, number: int, envelope: bytes, outcome: str) -> None:
    context.database.execute("INSERT INTO mail VALUES (?, ?, ?)", (number, digest_of_bytes(envelope), outcome))


def _keep(context: GateContext, message: Message, body: bytes) -> str:
    if isinstance(message, RoundTask):
        return _keep_task(context, message, body)
    if isinstance(message, TaskCancelled):
        return _cancel(context, message.task_id)
    if isinstance(message, StudyClosed):
        return _close(context, message.study_digest)
    if isinstance(message, LedgerRecord):
        return high_water.hear(context, message)
    return keep_masking_mail(context.database, message, body)


def _keep_task(context: GateContext, task: RoundTask, body: bytes) -> str:
    digest = digest_of_bytes(body)
    known = task_record(context.database, task.task_id)
    if known is not None:
        # The first task of this id stands: its digest keys the noise, and one answer leaves.
        return "known" if known.digest == digest else "conflict"
    add_task(context.database, task, body, digest, context.clock())
    note_head(context.database, task.ledger_head)
    return "task"


def _cancel(context: GateContext, task_id: str) -> str:
    known = task_record(context.database, task_id)
    if known is not None and known.state in ("waiting", "accepted"):
        set_task(context.database, task_id, "cancelled")
    return "cancelled"


def _close(context: GateContext, study_digest: str) -> str:
    if study_record(context.database, study_digest) is None:
        return "unknown study"
    set_study(context.database, study_digest, state="closed")
    context.database.execute(
        "UPDATE tasks SET state = 'cancelled' WHERE study = ? AND state IN ('waiting', 'accepted')", (study_digest,)
    )
    return "study closed"
