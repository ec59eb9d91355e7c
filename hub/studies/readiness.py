"""What a hospital tells of its readiness for a study: recorded once, checked by the study's own terms, shown."""

from math import isinf
from typing import Any

from hub.audit.log import append
from hub.errors import NotFoundError, RequestError, StateError
from hub.services import Services
from hub.storage import readiness_stores, stores
from hub.storage.database import Session
from hub.storage.tables import ReadinessRow, StudyRow
from hub.studies.lifecycle import is_open
from hub.studies.specification import stored_study
from hub.studies.stated_accounts import TOLERANCE
from protocol.digest import digest_of_bytes, parse_json
from protocol.privacy_accounting import epsilon_of, training_events
from protocol.readiness import ReadinessReport, expected_patients
from protocol.signing import read_unverified


def record_readiness(services: Services, report: ReadinessReport, envelope: bytes) -> None:
    """Record a site's report; the same one again changes nothing. The caller has checked that its gate signed it.

    Raises: NotFoundError if the site was not invited; StateError if the study has ended, or another report of this
        number is there; RequestError if the report is of other terms than the study's.
    """
    planned = _planned_epsilon(services, report.study_digest)  # slow the first time: before the transaction
    with services.transaction() as session:
        study = stores.study(session, report.study_digest)
        if stores.find_participant(session, study.digest, report.site) is None:
            raise NotFoundError("The site was not invited to this study.", "Ask its researcher.")
        known = readiness_stores.find_readiness(session, study.digest, report.site, report.number)
        if known is not None and read_unverified(known.report) == read_unverified(envelope):
            return
        if known is not None:
            raise StateError("Another report of this number was taken.", "Was the site's gate restored from a backup?")
        if not is_open(study.state):
            raise StateError(f"The study has ended: it is {study.state}.", "Propose a new study.")
        _check_terms(study, report, planned)
        row = ReadinessRow(
            study=study.digest,
            site=report.site,
            number=report.number,
            report=envelope,
            received_at=services.clock(),
        )
        session.add(row)
        details: dict[str, object] = {"number": report.number, "report": digest_of_bytes(read_unverified(envelope))}
        append(session, services.clock(), f"site:{report.site}", "study.readiness", study.digest, details)


def newest_readiness(session: Session, digest: str) -> dict[str, dict[str, Any]]:
    """Return each site's last report on a study, by site, as the API shows it."""
    return {row.site: _view(row) for row in readiness_stores.readiness_of(session, digest)}


def _planned_epsilon(services: Services, digest: str) -> float | None:
    """Return what a training patient spends over the whole study by this hub's accountant; None if nothing bounds it.

    Raises: NotFoundError if there is no such study.
    """
    with services.reading() as session:
        study = stores.study(session, digest)
    spec, noise = stored_study(study.specification), study.noise_multiplier
    if noise is None:
        return None
    epsilon = epsilon_of(training_events(spec, noise, spec.maximum_training_tasks), spec.privacy.delta)
    return None if isinf(epsilon) else epsilon


def _check_terms(study: StudyRow, report: ReadinessReport, planned: float | None) -> None:
    """Check what the study alone decides: a site that says otherwise runs another release."""
    asked = study.noise_multiplier, expected_patients(stored_study(study.specification))
    told = report.noise_multiplier, report.stand_ins or asked[1]
    if told != asked or not _is_same(report.epsilon, planned):
        raise RequestError(
            "The readiness report is of other terms than the study's.",
            "Do hub and site run the same release of Wardround?",
        )


def _is_same(epsilon: float | None, planned: float | None) -> bool:
    if epsilon is None or planned is None:
        return epsilon is planned
    return abs(epsilon - planned) <= TOLERANCE * max(1.0, planned)


def _view(row: ReadinessRow) -> dict[str, Any]:
    shown: dict[str, Any] = parse_json(read_unverified(row.report))
    for name in ("schema", "site", "study_digest"):
        shown.pop(name)
    return {**shown, "received_at": row.received_at}
