"""What people see of a study's rounds: states, traffic, privacy, and metrics pooled from the sites' histograms.

What is shown of metrics, and which counts are hidden, is `metric_views.py`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from hub.rounds.closing import needed_updates
from hub.rounds.judgements import judgements_of, judgements_of_version
from hub.rounds.learned_deadlines import usual_seconds
from hub.rounds.metric_views import View, metrics_view, shown_trainees, with_curves
from hub.rounds.rate_factors import parts_of
from hub.rounds.rate_memory import rates_of_versions
from hub.rounds.scoring import Report, Reports, version_of
from hub.rounds.terms import stored_task
from hub.rounds.training_rounds import measured_seconds
from hub.rounds.transitions import RoundState, TaskState, is_waiting
from hub.rounds.used_patients import receipt_view, used_by_task, warnings_of
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.receipt_stores import receipts_of_study
from hub.storage.tables import ParticipantRow, RoundRow, SiteRow, TaskRow, UpdateRow
from hub.studies.specification import stored_study
from protocol.messages import EvaluationReport, TaskKind
from protocol.round_receipts import UsedPatients
from protocol.study import StudySpec

_SITE_KINDS = {RoundState.EVALUATING: TaskKind.EVALUATE}


def round_views(session: Session, study: str, now: float) -> list[View]:
    """Return a RoundView for each round of a study, oldest first."""
    spec = stored_study(stores.study(session, study).specification)
    tasks: dict[int, list[TaskRow]] = defaultdict(list)
    for task in round_stores.tasks_of_study(session, study):
        tasks[task.round].append(task)
    reports = _reports_by_version(session, study)
    context = _Context(
        spec=spec,
        now=now,
        updates={update.task_id: update for update in round_stores.updates_of_study(session, study)},
        update_bytes=round_stores.upload_sizes(session, study),
        participants={row.site: row for row in stores.participants(session, study)},
        sites={row.name: row for row in stores.sites(session)},
        tasks=[task for own in tasks.values() for task in own],
        rates=rates_of_versions(session, spec, study),
        used=used_by_task(spec, receipts_of_study(session, study)),
    )
    versions = {row.number for row in stores.versions(session, study)}
    return [
        _round_view(context, row, tasks[row.number], reports.get(row.number, []), row.number in versions)
        for row in round_stores.rounds(session, study)
    ]


def round_number(session: Session, study: str) -> int | None:
    """Return the number of the study's newest round, None before the first."""
    row = round_stores.last_round(session, study)
    return None if row is None else row.number


def version_metrics(session: Session, study: str, number: int) -> View | None:
    """Return the pooled MetricsView of a version, None if nobody has judged it."""
    return metrics_view(judgements_of_version(session, study, number))


def version_validation(session: Session, study: str, number: int) -> View:
    """Return a version's metrics with ROC and calibration, pooled and for each site; under masks pooled alone."""
    reports = judgements_of_version(session, study, number)
    own = [report for report in reports if isinstance(report, EvaluationReport)]
    sites = [{"site": report.site, **(with_curves([report]) or {})} for report in own]
    return {"pooled": with_curves(reports), "sites": sites}


class _Context:
    """What all rounds of a study share."""

    def __init__(
        self,
        spec: StudySpec,
        now: float,
        updates: Mapping[str, UpdateRow],
        update_bytes: Mapping[str, int],
        participants: Mapping[str, ParticipantRow],
        sites: Mapping[str, SiteRow],
        tasks: Sequence[TaskRow],
        rates: Mapping[int, Mapping[str, float]],
        used: Mapping[str, UsedPatients],
    ) -> None:
        self.spec, self.now, self.updates, self.participants, self.sites = spec, now, updates, participants, sites
        self.tasks, self.measured = tasks, measured_seconds(tasks, TaskKind.TRAIN)
        self.update_bytes, self.rates = update_bytes, rates
        self.used = used


def _round_view(
    context: _Context, row: RoundRow, tasks: Sequence[TaskRow], reports: Reports, has_version: bool
) -> View:
    by_site: dict[str, list[TaskRow]] = defaultdict(list)
    for task in tasks:
        by_site[task.site].append(task)
    by_reporter = {report.site: report for report in reports if isinstance(report, EvaluationReport)}
    ended = row.ended_at if row.ended_at is not None else context.now
    sites = [
        *(_site_view(context, site, own, by_reporter.get(site)) for site, own in sorted(by_site.items())),
        *(_carried_view(context, task) for task in _carried(context, row) if task.site not in by_site),
    ]
    return {
        "number": row.number,
        "state": row.state,
        "version": row.number if has_version else None,
        "opened_at": row.opened_at,
        "deadline_at": row.deadline_at,
        "deadline_learned": _is_learned(context, row),
        "ended_at": row.ended_at,
        "seconds": max(0.0, ended - row.opened_at),
        "reason": row.reason or _overdue(context, row, tasks),
        "metrics": metrics_view(reports),
        "updates_waiting": _updates_waiting(context, row),
        "warnings": warnings_of(sites),
        "sites": sites,
    }


def _updates_waiting(context: _Context, row: RoundRow) -> int | None:
    """Return how many accepted updates wait for a round that trains."""
    if row.state != RoundState.TRAINING:
        return None
    return sum(update.taken_in is None and update.round > 0 for update in context.updates.values())


def _carried(context: _Context, row: RoundRow) -> list[TaskRow]:
    """Return the tasks of earlier rounds that a round which trains still waits for."""
    if row.state != RoundState.TRAINING:
        return []
    return [
        task
        for task in context.tasks
        if task.kind == TaskKind.TRAIN and is_waiting(task.state) and task.round < row.number
    ]


def _carried_view(context: _Context, task: TaskRow) -> View:
    # Its bytes are counted in its own round.
    return {**_site_view(context, task.site, [task], None), "bytes_up": 0, "bytes_down": 0}


def _overdue(context: _Context, row: RoundRow, tasks: Sequence[TaskRow]) -> str:
    if row.state != RoundState.TRAINING or context.now < row.deadline_at:
        return ""
    asked = [task for task in (*tasks, *_carried(context, row)) if task.kind == TaskKind.TRAIN]
    accepted = sum(task.state == TaskState.ACCEPTED for task in asked)
    needed = needed_updates(len(asked), context.spec.participants.quorum)
    return f"Overdue: {accepted} of the {needed} updates that make the quorum have come."


def _site_view(context: _Context, site: str, tasks: Sequence[TaskRow], report: EvaluationReport | None) -> View:
    by_kind = {task.kind: task for task in tasks}
    evaluate = by_kind.get(TaskKind.EVALUATE.value)
    worked = by_kind.get(TaskKind.TRAIN.value) or by_kind.get(TaskKind.INITIALISE.value)
    update = context.updates.get(worked.task_id) if worked else None
    participant, live = context.participants.get(site), context.sites.get(site)
    busy = live is not None and live.activity_task in {task.task_id for task in tasks}
    return {
        "site": site,
        "task_round": worked.round if worked else None,
        "train_state": worked.state if worked else None,
        "evaluate_state": evaluate.state if evaluate else None,
        "reason": next((task.reason for task in (worked, evaluate) if task and task.reason), None),
        "activity": live.activity if live is not None and busy else None,
        "fraction": live.activity_fraction if live is not None and busy else None,
        "patients": shown_trainees(participant.training_patients) if participant else None,
        "epsilon": update.epsilon if update else None,
        "update_bytes": context.update_bytes.get(worked.task_id) if worked and update else None,
        "bytes_up": sum(task.bytes_up for task in tasks),
        "bytes_down": sum(task.bytes_down for task in tasks),
        "train_seconds": _seconds(worked),
        "usual_seconds": usual_seconds(context.measured.get(site, [])),
        "counted_in": update.counted_in if update else None,
        "staleness": update.staleness if update else None,
        "norm": update.norm if update else None,
        "metrics": metrics_view([report]) if report else None,
        "receipt": receipt_view(update, context.used),
        **_rate_view(context, site, by_kind.get(TaskKind.TRAIN.value), update),
    }


def _rate_view(context: _Context, site: str, trained: TaskRow | None, update: UpdateRow | None) -> View:
    """Return the factor that a site trained with, and what its update said for the next one; None where none is due."""
    if context.spec.site_rates.adapt == "none" or trained is None:
        return {"rate_factor": None, "rate_parts": None}
    numbers = context.rates.get(update.counted_in, {}) if update and update.counted_in is not None else {}
    return {"rate_factor": stored_task(trained.document).rate_factor, "rate_parts": parts_of(site, numbers)}


def _is_learned(context: _Context, row: RoundRow) -> bool:
    terms = context.spec.participants
    return terms.deadline == "learned" and row.deadline_at - row.phase_at < terms.deadline_seconds


def _seconds(task: TaskRow | None) -> float | None:
    if task is None or task.answered_at is None:
        return None
    return max(0.0, task.answered_at - task.opened_at)


def _reports_by_version(session: Session, study: str) -> dict[int, list[Report]]:
    found: dict[int, list[Report]] = defaultdict(list)
    for report in judgements_of(session, study):
        found[version_of(report)].append(report)
    return found
