"""What a poll in vain costs the hub: most of a thousand hospitals' requests are of that kind."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import event

from hub.api.app import assemble
from hub.auth.coordinator import change_site, site_token
from hub.auth.enrolment import SiteEvent
from hub.services import Services
from hub.settings import SECRET_SECONDS, Settings, token_secret
from tests.fakes.hospital import Hospital

pytestmark = pytest.mark.both_databases


@pytest.fixture
def statements(services: Services) -> Iterator[list[str]]:
    """All statements sent to the database from now on, and what began their transactions where they needed one."""
    sent: list[str] = []
    engines = {services.database.engine, services.database._looker}

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement.split(maxsplit=1)[0])

    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


async def polls(services: Services, token: str, times: int) -> list[int]:
    transport = httpx.ASGITransport(assemble(services))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as client:
        answers = [await client.get("/v1/mailbox", params={"after": 0, "wait": 0}) for _ in range(times)]
    assert all(answer.json() == {"items": []} for answer in answers)
    return [answer.status_code for answer in answers]


def test_a_poll_in_vain_asks_the_database_who_calls_and_for_new_mail_and_nothing_else(
    services: Services, hospitals: list[Hospital], statements: list[str]
) -> None:
    token = site_token(services, hospitals[0].assertion()).access_token
    application = assemble(services)

    async def counted() -> list[str]:
        callers, rounds = application.state.callers, application.state.mail_rounds
        await callers.of(token)
        await callers.noted()  # the first call is noted, and the first look reads how far the mail goes
        await rounds.fetch("anna", 0)
        statements.clear()
        for _ in range(3):
            await callers.of(token)
            assert await rounds.fetch("anna", 0) == []
        return [statement for statement in statements if statement != "BEGIN"]

    assert asyncio.run(counted()) == ["SELECT"] * 6


def test_a_token_s_signature_is_checked_once_while_its_site_is_looked_up_each_time(
    services: Services, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = site_token(services, hospitals[0].assertion()).access_token
    checked: list[str] = []
    decode = jwt.decode

    def noted(token: str, *terms: Any, **options: Any) -> dict[str, Any]:
        checked.append(token)
        return decode(token, *terms, **options)

    monkeypatch.setattr(jwt, "decode", noted)
    assert asyncio.run(polls(services, token, 4)) == [200] * 4
    assert checked == [token]
    change_site(services, "anna", SiteEvent.SUSPEND, "operator:console")

    async def refused() -> int:
        transport = httpx.ASGITransport(assemble(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            return (await client.get("/v1/mailbox", headers={"Authorization": f"Bearer {token}"})).status_code

    assert asyncio.run(refused()) == 403


def test_a_secret_that_was_replaced_counts_from_the_next_second_on(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("hub.settings.time", SimpleNamespace(monotonic=lambda: now[0]))
    own: Settings = services.settings
    first = token_secret(own)
    own.token_key_file.write_bytes(b"n" * 32)
    assert token_secret(own) == first
    now[0] += SECRET_SECONDS
    assert token_secret(own) == b"n" * 32
