"""Uploads that go on at the last byte: announce, ask how far, send from there.

The bytes are checked while they come. What is refused gets its receipt in the answer to the very request that carried
the offending byte; the rest of that request is read and dropped, so that the site can read the answer. A request
holds its transfer against all others, of this process or another, while bytes come; one that falls silent is ended.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from hub.api.dependencies import ServicesOf, Site, body_up_to
from hub.direct_bodies import DirectBody, direct_body, given_file
from hub.errors import RequestError, StateError
from hub.rounds import uploads
from hub.rounds.transfers import Transfer
from hub.services import Services
from protocol.signing import MAX_ENVELOPE_BYTES

BLOCK_BYTES = 1 << 20
LONGEST_SILENCE_SECONDS = 20.0
MOST_DIGITS = 18

router = APIRouter()


@router.post("/v1/uploads")
def announce(
    services: ServicesOf, caller: Site, body: Annotated[bytes, Depends(body_up_to(MAX_ENVELOPE_BYTES))]
) -> dict[str, Any]:
    """Announce an update by its signed notice."""
    return uploads.announce(services, caller.name, body).document()


@router.get("/v1/uploads/{upload_id}")
def look_up(upload_id: str, services: ServicesOf, caller: Site) -> dict[str, Any]:
    """Say how far a transfer is."""
    return uploads.look_up(services, caller.name, upload_id).document()


@router.patch("/v1/uploads/{upload_id}")
async def send(upload_id: str, request: Request, services: ServicesOf, caller: Site) -> dict[str, Any]:
    """Take bytes from `Upload-Offset` on, and settle the transfer with its last byte."""
    offset = _offset(request)
    with ExitStack() as held:
        claim = uploads.claimed(services, caller.name, upload_id)
        transfer = await asyncio.to_thread(held.enter_context, claim)
        received = 0 if transfer is None else await _receive(request, services, upload_id, transfer, offset)
        if transfer is not None and transfer.received_bytes >= transfer.terms.payload_bytes:
            await asyncio.to_thread(uploads.complete, services, upload_id, transfer, received)
            received = 0
    state = await asyncio.to_thread(uploads.look_up, services, caller.name, upload_id, received)
    return state.document()


async def _receive(request: Request, services: Services, upload_id: str, transfer: Transfer, offset: int) -> int:
    if offset != transfer.received_bytes:
        raise StateError(
            f"The transfer stands at byte {transfer.received_bytes}, not {offset}.",
            "Ask for its offset and go on there.",
        )
    given = given_file(request.scope)
    if given is not None and not offset and await asyncio.to_thread(uploads.take, services, upload_id, transfer, given):
        return transfer.terms.payload_bytes
    room = transfer.terms.payload_bytes - offset
    direct, length = direct_body(request.scope), _length(request)
    if direct is not None and length is not None and length <= room:
        return await _receive_directly(direct, length, services, upload_id, transfer, offset)
    received, block, standing = 0, bytearray(), True
    async for chunk in _pieces(request):
        received += len(chunk)
        if received > room + BLOCK_BYTES:
            break  # far beyond what was announced: not worth reading on
        if not standing:
            continue
        block += chunk
        if len(block) >= BLOCK_BYTES:
            standing = await _append(services, upload_id, transfer, offset, bytes(block))
            offset += len(block)
            block.clear()
    if block and standing:
        await _append(services, upload_id, transfer, offset, bytes(block))
    return received


async def _receive_directly(
    direct: DirectBody, length: int, services: Services, upload_id: str, transfer: Transfer, offset: int
) -> int:
    at = offset

    def take(data: memoryview) -> bool:
        nonlocal at
        taken = uploads.append(services, upload_id, transfer, at, data)
        at += len(data)
        return taken is not None

    try:
        return await direct.read(length, take)
    except TimeoutError as error:
        raise StateError(
            f"No byte came for {LONGEST_SILENCE_SECONDS:g} seconds.", "Ask for the offset and go on."
        ) from error


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    pieces = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(LONGEST_SILENCE_SECONDS):
                piece = await anext(pieces)
            yield piece
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        raise StateError(
            f"No byte came for {LONGEST_SILENCE_SECONDS:g} seconds.", "Ask for the offset and go on."
        ) from error


async def _append(services: Services, upload_id: str, transfer: Transfer, offset: int, data: bytes) -> bool:
    return await asyncio.to_thread(uploads.append, services, upload_id, transfer, offset, data) is not None


def _offset(request: Request) -> int:
    text = request.headers.get("upload-offset", "")
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise RequestError("Upload-Offset is missing or is no number of bytes.", "Send the offset that the hub named.")
    return int(text)
