"""Studies: list, check, propose, start, stop, and the schema that the launch form is made from."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from hub.api.dependencies import Reader, Researcher, ServicesOf, body_up_to
from hub.services import Services
from hub.storage import stores
from hub.studies import coordinator
from hub.studies.specification import preview, read_study
from hub.studies.views import study_view
from protocol.study import MAX_STUDY_BYTES, study_json_schema

router = APIRouter(prefix="/v1/studies", tags=["studies"])
SpecificationText = Annotated[bytes, Depends(body_up_to(MAX_STUDY_BYTES))]


@router.get("")
def list_studies(caller: Reader, services: ServicesOf) -> list[dict[str, Any]]:
    """Return all studies, newest first."""
    with services.reading() as session:
        return [study_view(session, row) for row in stores.studies(session)]


@router.post("", status_code=201)
def propose_study(
    caller: Researcher,
    services: ServicesOf,
    body: SpecificationText,
    sites: Annotated[
        str, Query(max_length=4000, description="site names, separated by commas; none: all enrolled")
    ] = "",
) -> dict[str, Any]:
    """Propose a study, written as YAML or JSON, to sites."""
    named = [name.strip() for name in sites.split(",") if name.strip()]
    return _view(services, coordinator.propose(services, read_study(body), named, caller.name))


@router.post("/check")
def check_study(caller: Researcher, body: SpecificationText) -> dict[str, Any]:
    """Check a specification and say what it would cost; nothing is stored."""
    return preview(read_study(body))


@router.get("/schema")
def study_schema(caller: Reader) -> dict[str, Any]:
    """Return the JSON Schema of a specification."""
    return study_json_schema()


@router.get("/{digest}")
def show_study(caller: Reader, services: ServicesOf, digest: str) -> dict[str, Any]:
    """Return one study."""
    return _view(services, digest)


@router.post("/{digest}/start")
def start_study(caller: Researcher, services: ServicesOf, digest: str) -> dict[str, Any]:
    """Start a study without waiting for the sites that have not answered."""
    coordinator.start(services, digest, caller.name)
    return _view(services, digest)


@router.post("/{digest}/stop")
def stop_study(caller: Researcher, services: ServicesOf, digest: str) -> dict[str, Any]:
    """Stop a study for good."""
    coordinator.stop(services, digest, caller.name)
    return _view(services, digest)


def _view(services: Services, digest: str) -> dict[str, Any]:
    with services.reading() as session:
        return study_view(session, stores.study(session, digest))
