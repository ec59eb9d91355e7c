"""Model versions: list, show with validation, judge."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from hub.api.dependencies import Clinician, Reader, ServicesOf, body_up_to, text_fields
from hub.registry import coordinator
from hub.registry.versions import version_view
from hub.rounds import views as round_views
from hub.services import Services
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import VersionRow

router = APIRouter(prefix="/v1/studies/{digest}/versions", tags=["versions"])
MAX_DECISION_BYTES = 16 << 10


@router.get("")
def list_versions(caller: Reader, services: ServicesOf, digest: str) -> list[dict[str, Any]]:
    """Return a study's versions, oldest first."""
    with services.reading() as session:
        study = stores.study(session, digest)
        return [_view(session, row) for row in stores.versions(session, study.digest)]


@router.get("/{number}")
def show_version(caller: Reader, services: ServicesOf, digest: str, number: int) -> dict[str, Any]:
    """Return a version with its validation, pooled and for each site."""
    return _validated(services, digest, number)


@router.post("/{number}/decisions", status_code=201)
def judge_version(
    caller: Clinician,
    services: ServicesOf,
    digest: str,
    number: int,
    body: Annotated[bytes, Depends(body_up_to(MAX_DECISION_BYTES))],
) -> dict[str, Any]:
    """Record a clinician's judgement; it stays beside those of others."""
    fields = text_fields(body, "decision", optional=("comment",))
    coordinator.record_decision(services, digest, number, caller.name, fields["decision"], fields["comment"])
    return _validated(services, digest, number)


def _validated(services: Services, digest: str, number: int) -> dict[str, Any]:
    with services.reading() as session:
        stores.study(session, digest)
        row = stores.version(session, digest, number)
        return {**_view(session, row), "validation": round_views.version_validation(session, digest, number)}


def _view(session: Session, row: VersionRow) -> dict[str, Any]:
    metrics = round_views.version_metrics(session, row.study, row.number)
    return version_view(row, stores.decisions(session, row.study, row.number), metrics)
