"""The readiness report of one study: `wardround site check`, as a script reads it and as a person does."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from protocol.study import StudySpec
from site_node.cohort.cohort import SMALLEST_SAID
from site_node.doctor.finding import Finding, exit_status, fine, problem, warning
from site_node.errors import SiteError
from site_node.governance.policy import load_policy
from site_node.readiness.cost import find_cost
from site_node.readiness.names import find_unknown_names, said_of
from site_node.readiness.pace import Pace, measured_apart
from site_node.readiness.patients import Found, find_patients
from site_node.readiness.patients import lines_of as patient_lines
from site_node.readiness.room import find_room
from site_node.settings import SiteSettings
from site_node.training.networks import initial_weights

MARKS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM", "unseen": "unseen "}
Looking = Callable[[str], object]


def readiness_of(
    settings: SiteSettings, study: StudySpec, looking: Looking, *, measures: bool = True, all_names: bool = False
) -> dict[str, Any]:
    """Look at everything that a study needs here; `looking` is told what is looked at.

    Guarantee: nothing is frozen, charged, kept or sent; no patient is named, and no small number of them.
    """
    least = _least(settings, study)
    looking("patients and labels")
    found = find_patients(settings, study, least)
    looking("names")
    cohort = found.cohort
    known = cohort.mask_names if cohort is not None else None
    unknown = find_unknown_names(settings, study, least, all_names=all_names, known=known)
    looking("the price in privacy")
    trains = cohort is None or bool(cohort.of("train"))
    cost = find_cost(settings, study, trains=trains, holds_out=_holds_out(found))
    findings = [*found.findings, said_of(unknown), *cost.findings]
    machine, figures = _machine(settings, study, found, looking, measures=measures)
    findings += machine
    status = exit_status(finding.level for finding in findings)
    return {
        "study": study.name,
        "study_digest": study.digest,
        "status": status,
        "ready": not any(finding.level == "problem" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "patients": dict(found.figures),
        "unknown_names": None if unknown is None else asdict(unknown),
        "privacy": cost.figures,
        "machine": figures,
    }


def lines_of(report: dict[str, Any]) -> Iterator[str]:
    """Return the report as lines for a terminal."""
    yield f"{report['study']}  {report['study_digest']}"
    if report["patients"]:
        yield from patient_lines(report["patients"])
    for finding in report["findings"]:
        yield f"{MARKS[finding['level']]} {finding['check']:<10} {finding['says']}"
        if finding["level"] != "ok" and finding["remedy"]:
            yield f"{'':<18} → {finding['remedy']}"
    yield "This site is ready for the study." if report["ready"] else "This site is NOT ready for the study."


def _least(settings: SiteSettings, study: StudySpec) -> int:
    try:
        own = load_policy(settings.policy).minimum_patients
    except SiteError:  # said where the policy is asked
        own = SMALLEST_SAID
    return max(SMALLEST_SAID, own, study.cohort.minimum_patients)


def _holds_out(found: Found) -> bool:
    return found.cohort is not None and bool(found.cohort.of("validation") or found.cohort.of("test"))


def _machine(
    settings: SiteSettings, study: StudySpec, found: Found, looking: Looking, *, measures: bool
) -> tuple[list[Finding], dict[str, Any]]:
    try:
        values = sum(array.size for array in initial_weights(study).values())
    except SiteError as error:
        return [problem("network", error.message, error.remedy)], {}
    cohort = found.cohort
    if cohort is None:
        return [], {"network_values": values}
    pace: Pace | str | None = None
    if measures and cohort.of("train"):
        looking("the pace of training")
        pace = measured_apart(study, cohort, settings.threads, lambda words: looking(f"the pace of training: {words}"))
    measured = pace if isinstance(pace, Pace) else None
    findings, figures = find_room(settings, study, cohort, values, measured)
    return [*findings, *_pace(study, pace)], {"network_values": values, **figures, **_timing(measured)}


def _pace(study: StudySpec, pace: Pace | str | None) -> Iterator[Finding]:
    if pace is None:
        return
    if isinstance(pace, str):
        yield problem("pace", pace, "Look at the site's doctor: wardround site doctor DIR")
        return
    deadline = study.participants.deadline_seconds / 60
    says = (
        f"About {_minutes(pace.round_minutes)} for each of {study.rounds} rounds on {pace.device}, and once "
        f"{_minutes(pace.prepare_minutes)} to read the images; measured, and extrapolated to {pace.steps} steps."
    )
    if pace.round_minutes > deadline:
        remedy = "Ask the researcher for a later deadline or fewer steps, or use a faster machine."
        yield warning("pace", f"{says} The study's deadline is {_minutes(deadline)}.", remedy)
    else:
        yield fine("pace", says)


def _timing(pace: Pace | None) -> dict[str, Any]:
    if pace is None:
        return {}
    return {"round_minutes": pace.round_minutes, "prepare_minutes": pace.prepare_minutes, "device": pace.device}


def _minutes(minutes: float) -> str:
    return f"{minutes * 60:.1f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
