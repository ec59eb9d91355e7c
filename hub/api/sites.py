"""Sites: how they enrol and get their token, how the operator invites them, how everyone sees them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from hub.api.dependencies import Anyone, Operator, Reader, ServicesOf, body_up_to, text_fields
from hub.auth import coordinator
from hub.auth.views import site_view
from hub.storage import stores

router = APIRouter(prefix="/v1", tags=["sites"])
MAX_ENROLMENT_BYTES = 8 << 10
SmallBody = Annotated[bytes, Depends(body_up_to(MAX_ENROLMENT_BYTES))]


@router.post("/enrolments")
def enrol_site(caller: Anyone, services: ServicesOf, body: SmallBody) -> dict[str, str]:
    """Enrol a site: a DSSE envelope of an Enrolment, signed by its identity key."""
    return {"site": coordinator.enrol_site(services, body), "hub_key": services.key.public.text}


@router.post("/token/site")
def site_token(caller: Anyone, services: ServicesOf, body: SmallBody) -> dict[str, Any]:
    """Give a site its token for an assertion signed by its transport key."""
    return coordinator.site_token(services, text_fields(body, "assertion")["assertion"]).__dict__


@router.get("/sites")
def list_sites(caller: Reader, services: ServicesOf) -> list[dict[str, Any]]:
    """Return all sites and what they are doing."""
    with services.reading() as session:
        return [site_view(row, services.clock()) for row in stores.sites(session)]


@router.post("/sites/invitations", status_code=201)
def invite_site(caller: Operator, services: ServicesOf, body: SmallBody) -> dict[str, Any]:
    """Invite a site; its code is shown this once."""
    return coordinator.invite_site(services, text_fields(body, "name")["name"], caller.actor).__dict__
