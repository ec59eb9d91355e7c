"""A study as the API shows it."""

from typing import Any

from hub.rounds import views as round_views
from hub.rounds.metric_views import shown_trainees
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import ParticipantRow, StudyRow
from hub.studies.readiness import newest_readiness
from hub.studies.specification import stored_study
from protocol.site_rates import QualityFigures


def study_view(session: Session, row: StudyRow) -> dict[str, Any]:
    """Return a StudyView."""
    spec = stored_study(row.specification)
    readiness = newest_readiness(session, row.digest)
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
        "sites": [
            _site(participant, readiness.get(participant.site))
            for participant in stores.participants(session, row.digest)
        ],
    }


def _site(row: ParticipantRow, readiness: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "site": row.site,
        "state": row.state,
        "reason": row.reason,
        "training_patients": shown_trainees(row.training_patients),
        "evaluates": row.evaluates,
        "quality": None if row.quality is None else QualityFigures.model_validate_json(row.quality).model_dump(),
        "readiness": readiness,
    }
