"""Folders made to say what the database says: verdicts, orders and the outbox. Whatever was lost is written again."""

import time
from typing import Literal

import structlog

from protocol.digest import canonical_json
from protocol.keeping import left_behind
from protocol.messages import Reason, TaskKind
from site_node.cohort_members import SPENT_SUFFIX, write_spent
from site_node.durable import boot_id, finished_files, remove, write_durably
from site_node.errors import GateError, SettingsError
from site_node.governance import egress, hash_chain, high_water, spool
from site_node.governance.context import GateContext
from site_node.governance.decrypting import awaited_requests
from site_node.governance.holding import is_draining
from site_node.governance.privacy_ledger import accounts, spent_patients
from site_node.governance.quality_records import class_weights_of
from site_node.governance.records import StudyRecord, is_paused, study_record, study_records, task_records
from site_node.governance.telling_readiness import readiness_orders
from site_node.orders import ENDED_SUFFIX, WorkOrder, cohort_task_id, ended_path, order_path, write_order
from site_node.settings import SitePaths
from site_node.sqlite import transaction

ORDERED: dict[TaskKind, Literal["initialise", "train", "evaluate"]] = {
    TaskKind.INITIALISE: "initialise",
    TaskKind.TRAIN: "train",
    TaskKind.EVALUATE: "evaluate",
}
_log = structlog.get_logger()


def read_receipts(context: GateContext) -> int:
    """Keep the hub's receipts and clear what they answer from the outbox; return how many."""
    receipts = spool.received(context.paths.receipts)
    for number, path in receipts:
        payload = context.database.execute(
            "SELECT payload_digest FROM envelopes WHERE number = ?", (number,)
        ).fetchone()
        digest = None if payload is None else payload["payload_digest"]
        try:
            with transaction(context.database):
                receipt = egress.accept_receipt(context.database, number, path.read_bytes(), context.hub_key)
        except GateError as error:
            _log.warning("receipt_refused", number=number, why=str(error))
        else:
            if not receipt.accepted:
                _log.warning("hub_refused_message", number=number, why=receipt.reason)
            spool.clear(context.paths, number, digest, _is_needed(context, digest))
        context.checkpoint("receipt kept")
        path.unlink(missing_ok=True)  # one that stays would be read for ever: the error is told
    return len(receipts)


def fill_outbox(context: GateContext) -> int:
    """Put everything recorded and not yet receipted into the outbox; return how many were missing there.

    What was taken back leaves the outbox; while the site is paused everything does, and lies there again afterwards.
    """
    _empty_outbox(context)
    if is_paused(context.database):
        return 0
    outbox = context.paths.outbox
    missing = [entry for entry in egress.unsent(context.database) if not spool.numbered(outbox, entry[0]).exists()]
    if missing:
        high_water.advance(context)
        context.checkpoint("mark advanced")
    for number, envelope, payload_digest in missing:
        spool.place(context.paths, number, envelope, payload_digest)
        context.checkpoint("outbox filled")
    return len(missing)


def _empty_outbox(context: GateContext) -> None:
    """Take away what may not leave now; the gate keeps its own copy of a payload that leaves later."""
    waiting = {number: digest for number, _, digest in egress.unsent(context.database)}
    paused = is_paused(context.database)
    for number, _ in spool.received(context.paths.outbox):
        if paused and number in waiting:
            spool.withhold(context.paths, number, waiting[number])
        elif number not in waiting:
            row = context.database.execute("SELECT payload_digest FROM envelopes WHERE number = ?", (number,))
            digest = next((found["payload_digest"] for found in row), None)
            spool.clear(context.paths, number, digest, _is_needed(context, digest))


def write_verdicts_and_orders(context: GateContext) -> int:
    """Write the verdicts and orders that are wanted now and take the others away; return how many changed."""
    paths, paused = context.paths, is_paused(context.database)
    holds_counts = paused or is_draining(context.database)
    orders: dict[str, StudyRecord] = {}
    verdicts: dict[str, tuple[str, str | None]] = {}
    for known in study_records(context.database, "counting"):
        orders[cohort_task_id(known.digest, known.recount)] = known
    changed = _write_cohort_orders(context, {} if holds_counts else orders)
    looking = readiness_orders(context.database)
    changed += _write_new(context, {} if holds_counts else looking)
    for task_id in {*orders, *looking}:
        verdicts[task_id] = ("wait", "paused" if paused else "draining") if holds_counts else ("accept", None)
    for record in task_records(context.database, "waiting", "accepted", "refused"):
        word = {"waiting": "wait", "accepted": "accept", "refused": "refuse"}[record.state]
        verdicts[record.task_id] = ("wait", "paused") if paused and word == "accept" else (word, record.reason)
    for request in awaited_requests(context):
        verdicts[request.task_id] = ("wait", "paused") if paused else ("accept", None)
    wanted = {task_id for task_id, (word, _) in verdicts.items() if word == "accept"}
    changed += _write_task_orders(context, wanted - {*orders, *looking})
    context.checkpoint("orders written")
    for path in finished_files(paths.orders, ".json"):
        if path.stem not in wanted:
            remove(path)
            changed += 1
    for path in finished_files(paths.orders, SPENT_SUFFIX):
        if path.stem not in wanted:
            remove(path)
    return changed + _write_ended(context) + _write_verdicts(paths, verdicts)


def remove_orphans(context: GateContext) -> None:
    """Make folders and records agree again after a crash or a restored backup. Called at the start.

    Payloads that nothing recorded needs go, and envelopes in the outbox that are not what is recorded under their
    number. What is recorded with a payload that is gone was sent before the backup was restored: it is not sent again.
    """
    paths, unsent = context.paths, egress.unsent(context.database)
    needed = {spool.kept_payload(paths, digest) for _, _, digest in unsent if digest}
    for path in paths.gate_payloads.iterdir():
        if path not in needed:
            remove(path)
    for folder in (paths.outbox, paths.candidates):
        for path in left_behind(folder, time.time()):
            if path.name.startswith("."):  # what a killed gate or worker did not finish
                remove(path)
    recorded = {number: envelope for number, envelope, _ in unsent}
    for number, path in spool.received(paths.outbox):
        if recorded.get(number) != path.read_bytes():
            spool.clear(paths, number, None, payload_is_needed=True)
    for number, _, digest in unsent:
        if digest is not None and not spool.has_payload(paths, number, digest):
            _log.error("payload_gone", number=number)
            with transaction(context.database):
                entry = hash_chain.entries(context.database, "egress", after=number - 1)[0]
                egress.set_aside(context.database, entry, context.clock(), egress.PAYLOAD_GONE)


def _is_needed(context: GateContext, payload_digest: str | None) -> bool:
    row = context.database.execute("SELECT 1 FROM unsent WHERE payload_digest = ?", (payload_digest,)).fetchone()
    return row is not None


def _write_cohort_orders(context: GateContext, wanted: dict[str, StudyRecord]) -> int:
    changed = 0
    for task_id, known in wanted.items():
        if not order_path(context.paths, task_id).exists():
            try:
                write_order(context.paths, _cohort_order(context, task_id, known))
            except SettingsError:  # whoever decides complains of the policy; the other orders and verdicts go on
                continue
            changed += 1
    return changed


def _write_new(context: GateContext, wanted: dict[str, WorkOrder]) -> int:
    new = [order for task_id, order in wanted.items() if not order_path(context.paths, task_id).exists()]
    for order in new:
        write_order(context.paths, order)
    return len(new)


def _cohort_order(context: GateContext, task_id: str, known: StudyRecord) -> WorkOrder:
    held = accounts(context.database, context.policy())
    spent = spent_patients(context.database, held, known.study, known.noise_multiplier, apart=known.recount > 0)
    return WorkOrder(
        kind="cohort",
        task_id=task_id,
        task_digest=known.digest,
        study=known.study.model_dump(mode="json", by_alias=True),
        study_digest=known.digest,
        spent_digest=None if spent.is_empty() else write_spent(context.paths, task_id, spent),
        recount=known.recount,
    )


def _write_task_orders(context: GateContext, wanted: set[str]) -> int:
    changed = 0
    for record in task_records(context.database, "accepted"):
        if record.task_id not in wanted or order_path(context.paths, record.task_id).exists():
            continue
        task = record.task
        kind = ORDERED.get(task.kind)
        known = study_record(context.database, task.study_digest)
        if known is None or kind is None:
            continue
        study, training = known.study, task.kind is TaskKind.TRAIN
        write_order(
            context.paths,
            WorkOrder(
                kind=kind,
                task_id=task.task_id,
                task_digest=record.digest,
                study=study.model_dump(mode="json", by_alias=True),
                study_digest=task.study_digest,
                round=task.round,
                base_blob=None if task.base is None else task.base.weights_digest,
                control_blob=None if task.control is None else task.control.weights_digest,
                noise_multiplier=known.noise_multiplier if training else None,
                update_norm=task.update_norm,
                rate_factor=task.rate_factor,
                class_weights=class_weights_of(context.database, study, known.digest, known.training_patients)
                if training
                else None,
                cohort_digest=None if task.kind is TaskKind.INITIALISE else known.cohort_digest,
                boot=boot_id(),
            ),
        )
        changed += 1
    return changed


def _write_ended(context: GateContext) -> int:
    """Say which studies have ended for good, so that the worker deletes what it kept of them.

    A refusal by `ledger-behind` is taken up again, and a withdrawn approval may be renewed until the hub closes the
    study: their cohorts stay, because no other may take the place of the one that was charged.
    """
    rows = context.database.execute(
        "SELECT digest FROM studies WHERE state = 'closed' OR (state = 'refused' AND reason != ?)",
        (Reason.LEDGER_BEHIND,),
    )
    wanted = {ended_path(context.paths, digest) for digest in {row["digest"] for row in rows} | _lost(context)}
    there = set(finished_files(context.paths.orders, ENDED_SUFFIX))
    for path in wanted - there:
        write_durably(path, b"")
    for path in there - wanted:
        remove(path)
    return len(wanted ^ there)


def _lost(context: GateContext) -> set[str]:
    withdrawn = context.database.execute("SELECT digest FROM studies WHERE state = 'withdrawn'")
    return {row["digest"] for row in withdrawn} & high_water.given_up(context.database)


def _write_verdicts(paths: SitePaths, wanted: dict[str, tuple[str, str | None]]) -> int:
    changed = 0
    for task_id, (word, reason) in wanted.items():
        path = paths.verdicts / f"{task_id}.json"
        content = canonical_json({"task_id": task_id, "verdict": word, "reason": reason})
        if not path.exists() or path.read_bytes() != content:
            write_durably(path, content)
            changed += 1
    for path in finished_files(paths.verdicts, ".json"):
        if path.stem not in wanted:
            remove(path)
            changed += 1
    return changed
