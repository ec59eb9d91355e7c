"""What is known of how good versions are: the sites' reports, or under masks what their counts sum to."""

from hub.rounds.scoring import Report, pooled_reports_of, reports_of
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import pooled_evaluation, pooled_evaluations


def judgements_of(session: Session, study: str) -> list[Report]:
    """Return all that is known of a study's versions."""
    sums = pooled_reports_of(pooled_evaluations(session, study))
    return [*reports_of(round_stores.evaluations_of_study(session, study)), *sums]


def judgements_of_version(session: Session, study: str, version: int) -> list[Report]:
    """Return what is known of one version; under masks it is one report at most."""
    opened = pooled_evaluation(session, study, version)
    reports = reports_of(round_stores.evaluations_of_version(session, study, version))
    return [*reports, *pooled_reports_of([] if opened is None else [opened])]
