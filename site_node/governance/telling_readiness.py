"""A readiness report's way through the gate: asked for, measured by the worker, checked, told to the hub.

Nothing here waits for a cohort or looks at one: a report is asked for, and leaves, in the same way however many
patients match the study, and whether any do. It leaves for a study that was proposed here and has not been refused, at
most `MOST_REPORTS` times. What site.yaml says of labels leaves only where a person asked: a researcher could else read
a hospital's words off it, study by study.
"""

import math
import sqlite3

import structlog

from protocol.privacy_accounting import epsilon_of
from protocol.readiness import HOURS_A_WEEK, ReadinessReport
from site_node.durable import finished_files, remove
from site_node.errors import GateError, SettingsError
from site_node.governance.context import GateContext
from site_node.governance.holding import is_draining
from site_node.governance.policy import Patients, objection_to, planned_events
from site_node.governance.readiness_requests import (
    ReadinessRequest,
    ask_for_readiness,
    readiness_requests,
    set_readiness,
)
from site_node.governance.records import StudyRecord, StudyState, study_record, study_records
from site_node.machine_figures import MACHINE_SUFFIX, MachineFigures, machine_path, read_machine_figures
from site_node.orders import WorkOrder, readiness_task_id
from site_node.sqlite import transaction
from site_node.training_hours import TrainHours

TOLD_IN: tuple[StudyState, ...] = ("counting", "awaiting", "approved")
_log = structlog.get_logger()


def ask_as_person(database: sqlite3.Connection, study: str, now: float) -> int:
    """Let a study's readiness report leave, once more; return its number. The gate does it.

    Raises: SettingsError if the study is not proposed here any more, or has been told of often enough.
    """
    with transaction(database):
        record = study_record(database, study)
        if record is None or record.state not in TOLD_IN:
            raise SettingsError(
                "The researcher is told of readiness only while a study is proposed to this site and not refused.",
                "See `wardround site studies DIR`.",
            )
        number = ask_for_readiness(database, study, "person", now)
    if number is None:
        raise SettingsError("The researcher was told of this study as often as may be.", "Tell the rest by telephone.")
    return number


def advance_readiness(context: GateContext) -> int:
    """Ask where the policy does, and tell what the worker has measured; return how many steps were done."""
    done = _ask_by_policy(context)
    waiting = readiness_requests(context.database, "asked")
    done += sum(_tell(context, request) for request in waiting)
    awaited = {machine_path(context.paths, request.study) for request in waiting}
    for path in finished_files(context.paths.cohorts, MACHINE_SUFFIX):
        if path not in awaited:
            remove(path)  # nobody asked, or it has been told: the next report is measured anew
    return done


def readiness_orders(database: sqlite3.Connection) -> dict[str, WorkOrder]:
    """Return the orders that are wanted of the worker, by their ids."""
    orders = {}
    for request in readiness_requests(database, "asked"):
        record = study_record(database, request.study)
        if record is not None and record.state in TOLD_IN:
            task_id = readiness_task_id(request.study, request.number)
            orders[task_id] = WorkOrder(
                kind="readiness",
                task_id=task_id,
                task_digest=record.digest,
                study=record.study.model_dump(mode="json", by_alias=True),
                study_digest=record.digest,
                recount=request.number,
            )
    return orders


def hours_a_week(hours: TrainHours | None) -> int:
    """Return in how many hours of the week a training may begin, rounded up. Pure."""
    return HOURS_A_WEEK if hours is None else max(1, math.ceil(hours.minutes_a_week / 60))


def _ask_by_policy(context: GateContext) -> int:
    proposed = study_records(context.database, "counting", "awaiting")
    if not proposed or context.policy().tell_readiness != "always":
        return 0
    known = {request.study for request in readiness_requests(context.database)}
    new = [record for record in proposed if record.digest not in known]
    if new:
        with transaction(context.database) as database:
            for record in new:
                ask_for_readiness(database, record.digest, "policy", context.clock())
    return len(new)


def _tell(context: GateContext, request: ReadinessRequest) -> int:
    record = study_record(context.database, request.study)
    if record is None or record.state not in TOLD_IN:
        with transaction(context.database) as database:
            set_readiness(database, request, "dropped")
        return 1
    figures = _figures(context, request)
    if figures is None:
        return 0
    report = _report(context, request, record, figures)
    with transaction(context.database) as database:
        set_readiness(database, request, "told")
        context.send(report)
    context.checkpoint("readiness told")
    _log.info("readiness_told", study=request.study, number=request.number)
    return 1


def _figures(context: GateContext, request: ReadinessRequest) -> MachineFigures | None:
    """Return what the worker found for this request; what is none, or of another, is taken away and made again."""
    try:
        figures = read_machine_figures(context.paths, request.study)
    except GateError as error:
        _log.error("machine_figures_refused", study=request.study, why=str(error))
    else:
        if figures is None or figures.number == request.number:
            return figures
    remove(machine_path(context.paths, request.study))
    return None


def _report(
    context: GateContext, request: ReadinessRequest, record: StudyRecord, figures: MachineFigures
) -> ReadinessReport:
    own = figures.model_dump(exclude={"study_digest", "number"})
    if request.asked_by == "policy":
        own |= {"labels": "not-told", "class_names": "not-told"}
    return ReadinessReport.model_validate(
        {
            "site": context.settings.name,
            "study_digest": record.digest,
            "number": request.number,
            "policy": "allows"
            if objection_to(context.policy(), record.study, record.noise_multiplier) is None
            else "objects",
            "tasks": "draining" if is_draining(context.database) else "taken",
            "train_hours": hours_a_week(context.settings.train_hours),
            "epsilon": _epsilon(record),
            "noise_multiplier": record.noise_multiplier,
            **own,
        }
    )


def _epsilon(record: StudyRecord) -> float | None:
    """Return what a training patient would spend over the whole study; None where nothing bounds it.

    Planned for a site that trains and holds out, whether this one does or not.
    """
    events = [
        e for group, e in planned_events(record.study, record.noise_multiplier, Patients(1, 1)) if group == "training"
    ]
    if not events or None in events:
        return None
    epsilon = epsilon_of([event for event in events if event is not None], record.study.privacy.delta)
    return None if math.isinf(epsilon) else epsilon
