"""A study as the API shows it."""

from typing import Any

from hub.rounds import views as round_views
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import ParticipantRow, StudyRow
from hub.studies.specification import stored_study
from protocol.site_rates import QualityFigures


def study_view(session: Session, row: StudyRow) -> dict[str, Any]:
    """Return a StudyView."""
    spec = stored_study(row.specification)
    return {
        "digest": row.digest,
        "name": row.name,
        "title": spec.title,
        "description": spec.description,
        "state": row.state,
        "reason": row.reason,
        "kind": spec.kind,
        "study": spec.model_dump(mode="json", by_alias=True),
        "noise_multiplier": row.noise_multiplier,
        "rounds_planned": spec.rounds,
        "round": round_views.round_number(session, row.digest),
        "proposed_by": row.proposed_by,
        "proposed_at": row.proposed_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "final_version": row.final_version,
        "privacy": {
            "unit": spec.privacy.unit,
            "epsilon_target": spec.privacy.epsilon,
            "epsilon": stores.epsilon_spent(session, row.digest),
            "delta": None if spec.privacy.epsilon is None else spec.privacy.delta,
        },
        "sites": [_site(participant) for participant in stores.participants(session, row.digest)],
    }


def _site(row: ParticipantRow) -> dict[str, Any]:
    return {
        "site": row.site,
        "state": row.state,
        "reason": row.reason,
        "training_patients": row.training_patients,
        "evaluates": row.evaluates,
        "quality": _quality(row),
    }


def _quality(row: ParticipantRow) -> dict[str, float | None] | None:
    """Return a site's quality figures; an un-noised count under five patients, of either class, is not shown."""
    if row.quality is None:
        return None
    figures = QualityFigures.model_validate_json(row.quality)
    shown: dict[str, float | None] = {**figures.model_dump()}
    if figures.noise_epsilon is not None:
        return shown
    if min(figures.positive, row.training_patients - figures.positive) < round_views.SMALLEST_SHOWN_COUNT:
        shown["positive"] = None
    for count in ("unreadable", "repeated"):
        if (shown[count] or 0) < round_views.SMALLEST_SHOWN_COUNT:
            shown[count] = None
    return shown
