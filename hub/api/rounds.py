"""The rounds of a study, as people watch them."""

from typing import Any

from fastapi import APIRouter

from hub.api.dependencies import Reader, ServicesOf
from hub.rounds.views import round_views
from hub.storage import stores

router = APIRouter()


@router.get("/v1/studies/{digest}/rounds")
def rounds(digest: str, services: ServicesOf, _caller: Reader) -> list[dict[str, Any]]:
    """Return all rounds of a study with their sites and metrics."""
    with services.reading() as session:
        stores.study(session, digest)
        return round_views(session, digest, services.clock())
