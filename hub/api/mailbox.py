"""A site's mailbox (long poll) and its messages to the hub."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from hub.api.dependencies import ServicesOf, Site, body_up_to
from hub.api.mail_rounds import MailRounds
from hub.rounds.messages import receive
from protocol.signing import MAX_ENVELOPE_BYTES

LONGEST_WAIT_SECONDS = 30.0

router = APIRouter()


@router.get("/v1/mailbox")
async def mailbox(
    request: Request,
    services: ServicesOf,
    caller: Site,
    after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    wait: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
) -> dict[str, Any]:
    """Return the site's mail after a number; with none there, wait for some (at most 30 seconds).

    A wait that nobody ended is answered without another look: the site's next call begins with one.
    """
    loop, rounds = asyncio.get_running_loop(), mail_rounds_of(request)
    until = loop.time() + min(wait, LONGEST_WAIT_SECONDS)
    with services.waker.listening(caller.name) as signal:
        while True:
            items = await rounds.fetch(caller.name, after)
            left = until - loop.time()
            if items or left <= 0:
                return {"items": items}
            if not await signal.wait(left):
                return {"items": []}


@router.post("/v1/messages")
def messages(
    services: ServicesOf, caller: Site, body: Annotated[bytes, Depends(body_up_to(MAX_ENVELOPE_BYTES))]
) -> Response:
    """Take one signed message and return the hub's signed receipt."""
    return Response(receive(services, caller.name, body), media_type="application/json")


def mail_rounds_of(request: Request) -> MailRounds:
    """Return the process's reader of mail, which the application was assembled with."""
    rounds: MailRounds = request.app.state.mail_rounds
    return rounds
