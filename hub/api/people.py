"""People: signing in, who am I, and the operator's list of accounts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from hub.api.dependencies import Anyone, Operator, Reader, ServicesOf, body_up_to, text_fields
from hub.auth import coordinator
from hub.auth.views import person_view
from hub.storage import stores

router = APIRouter(prefix="/v1", tags=["people"])
MAX_ACCOUNT_BYTES = 4 << 10
SmallBody = Annotated[bytes, Depends(body_up_to(MAX_ACCOUNT_BYTES))]


@router.post("/token/person")
def person_token(caller: Anyone, services: ServicesOf, request: Request, body: SmallBody) -> dict[str, Any]:
    """Sign in with name and password; after too many wrong ones the answer is 429, with Retry-After."""
    address = request.client.host if request.client else ""
    fields = text_fields(body, "name", "password")
    return coordinator.person_token(services, fields["name"], fields["password"], address).__dict__


@router.get("/me")
def me(caller: Reader) -> dict[str, str]:
    """Return who is signed in."""
    return {"name": caller.name, "role": caller.role}


@router.get("/people")
def list_people(caller: Operator, services: ServicesOf) -> list[dict[str, Any]]:
    """Return all accounts."""
    with services.reading() as session:
        return [person_view(row) for row in stores.people(session)]


@router.post("/people", status_code=201)
def add_person(caller: Operator, services: ServicesOf, body: SmallBody) -> dict[str, Any]:
    """Make an account."""
    fields = text_fields(body, "name", "role", "password")
    coordinator.add_person(services, fields["name"], fields["role"], fields["password"], caller.actor)
    return {"name": fields["name"], "role": fields["role"]}
