"""What a site says beside its updates: approvals, heartbeats, refusals, evaluation reports. Each once, each signed.

A message that reaches this file was opened with the site's identity key, so it is that site's own and its gate let it
out. Every handler is idempotent: the same message again gives the same answer and changes nothing. The answer is a
receipt, signed by the hub, which says whether the message was taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hub.audit.log import append
from hub.auth.coordinator import open_from_site
from hub.errors import AdmissionError, HubError, NotFoundError, RequestError, StateError
from hub.rounds.asking import Turn, own_task, settle, turn_on
from hub.rounds.coordinator import advance
from hub.rounds.masking_messages import MASKING_KINDS, receive_masking
from hub.rounds.receipts import signed_receipt
from hub.rounds.terms import check_report, stored_task
from hub.rounds.transitions import TaskEvent, TaskState, is_waiting
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.tables import EvaluationRow, TaskRow
from hub.studies.coordinator import record_approval
from hub.studies.ledger_heads import post_record, record_charge
from hub.studies.readiness import record_readiness
from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.message import Message
from protocol.messages import Approval, EvaluationReport, LedgerCharge, Progress, Reason, TaskRefusal
from protocol.readiness import ReadinessReport
from protocol.signing import read_unverified

MessageType = TypeVar("MessageType", bound=Message)
LATE = "The task is no longer open: its round went on without this answer."


@dataclass(frozen=True)
class Arrived:
    """A message with the envelope that it came in."""

    site: str
    message: Any
    envelope: bytes

    @property
    def digest(self) -> str:
        """Return the digest of the message's bytes as they came."""
        return digest_of_bytes(read_unverified(self.envelope))


def open_message(services: Services, site: str, envelope: bytes, kind: type[MessageType]) -> MessageType:
    """Return the message in an envelope if this site's gate signed it; one that it did not sign is audited.

    Raises: SignatureError, MessageError or NotPermittedError.
    """
    try:
        with services.reading() as session:
            return open_from_site(session, site, envelope, kind)
    except (ProtocolError, HubError) as error:
        with services.transaction() as session:
            details = {"kind": kind.__name__, "problem": type(error).__name__}
            append(session, services.clock(), f"site:{site}", "message.refused", digest_of_bytes(envelope), details)
        raise


def receive(services: Services, site: str, envelope: bytes) -> bytes:
    """Handle one message and return the signed receipt.

    Raises: SignatureError, MessageError or NotPermittedError if it is not the site's own; RequestError if its kind does
        not belong here.
    """
    message = open_message(services, site, envelope, Message)
    handler = _HANDLERS.get(type(message))
    if handler is None:
        raise RequestError(f"A {type(message).__name__} is not sent here.", "Announce updates at /v1/uploads.")
    arrived = Arrived(site, message, envelope)
    try:
        reason = handler(services, arrived)
    except (StateError, NotFoundError, RequestError) as error:
        reason = error.message
    return signed_receipt(services.key, arrived.digest, reason, services.clock())


def _approval(services: Services, arrived: Arrived) -> str | None:
    record_approval(services, arrived.message, arrived.envelope)
    return None


def _readiness(services: Services, arrived: Arrived) -> str | None:
    record_readiness(services, arrived.message, arrived.envelope)
    return None


def _progress(services: Services, arrived: Arrived) -> str | None:
    progress: Progress = arrived.message
    with services.transaction() as session:
        stores.set_activity(session, arrived.site, progress.activity.value, progress.task_id, progress.fraction)
    return None


def _masking(services: Services, arrived: Arrived) -> str | None:
    return receive_masking(services, arrived.site, arrived.message, arrived.envelope)


def _charge(services: Services, arrived: Arrived) -> str | None:
    return record_charge(services, arrived.message, arrived.envelope)


def _refusal(services: Services, arrived: Arrived) -> str | None:
    refusal: TaskRefusal = arrived.message
    with services.transaction() as session:
        task = own_task(session, arrived.site, refusal.task_id)
        if refusal.reason is Reason.LEDGER_BEHIND and is_waiting(task.state):
            post_record(session, services, arrived.site)
        if not is_waiting(task.state):
            same = task.state == TaskState.REFUSED and task.reason == refusal.reason.value
            return None if same else LATE
        settle(turn_on(session, services, task.study), task, TaskEvent.REFUSED, refusal.reason.value)
        round_stores.count_bytes(session, task.task_id, up=len(arrived.envelope))
        advance(session, services, task.study)
    return None


def _report(services: Services, arrived: Arrived) -> str | None:
    report: EvaluationReport = arrived.message
    payload = read_unverified(arrived.envelope)
    with services.transaction() as session:
        task = own_task(session, arrived.site, report.task_id)
        known = round_stores.evaluation(session, task.task_id)
        if known is not None:
            return None if known.report == payload else "Another report was taken for this task."
        if not is_waiting(task.state):
            return task.reason if task.state == TaskState.REFUSED else LATE
        turn = turn_on(session, services, task.study)
        try:
            check_report(report, stored_task(task.document), turn.spec)
        except AdmissionError as error:
            settle(turn, task, TaskEvent.REFUSED, error.message, actor="hub")
            advance(session, services, task.study)
            return error.message
        _keep(turn, task, report, payload)
        settle(turn, task, TaskEvent.ANSWERED)
        round_stores.count_bytes(session, task.task_id, up=len(arrived.envelope))
        advance(session, services, task.study)
    return None


_HANDLERS: dict[type[Message], Callable[[Services, Arrived], str | None]] = {
    Approval: _approval,
    ReadinessReport: _readiness,
    LedgerCharge: _charge,
    Progress: _progress,
    TaskRefusal: _refusal,
    EvaluationReport: _report,
    **dict.fromkeys(MASKING_KINDS, _masking),
}


def _keep(turn: Turn, task: TaskRow, report: EvaluationReport, payload: bytes) -> None:
    row = EvaluationRow(
        task_id=task.task_id,
        study=task.study,
        round=task.round,
        version=report.version.number,
        site=task.site,
        report=payload,
        received_at=turn.now,
    )
    turn.session.add(row)
    details: dict[str, object] = {"version": row.version, "report": digest_of_bytes(payload)}
    turn.audit(f"site:{task.site}", "evaluation.accepted", task.task_id, details)
