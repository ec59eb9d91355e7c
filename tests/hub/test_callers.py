"""Who may call: one look serves many, and each gets the answer of a look that began after it came."""

import asyncio
from collections.abc import Sequence

import pytest

from hub.api.callers import Callers
from hub.auth.coordinator import change_site, site_token
from hub.auth.enrolment import SiteEvent
from hub.errors import AuthenticationError, NotPermittedError
from hub.services import Services
from hub.storage import stores
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Clock


def tokens(services: Services, hospitals: Sequence[Hospital]) -> list[str]:
    return [site_token(services, hospital.assertion()).access_token for hospital in hospitals]


def test_many_sites_that_call_at_once_are_each_known_by_name(services: Services, hospitals: list[Hospital]) -> None:
    carried = tokens(services, hospitals)

    async def scene() -> list[str]:
        callers = Callers(services)
        return [caller.name for caller in await asyncio.gather(*(callers.of(token) for token in carried * 50))]

    assert asyncio.run(scene()) == ["anna", "bela", "clara"] * 50


def test_sites_that_come_while_looks_are_under_way_are_all_known(services: Services, hospitals: list[Hospital]) -> None:
    carried = tokens(services, hospitals)

    async def call(callers: Callers, number: int) -> str:
        await asyncio.sleep(number / 2000)
        return (await callers.of(carried[number % 3])).name

    async def scene() -> list[str]:
        callers = Callers(services)
        return await asyncio.gather(*(call(callers, number) for number in range(300)))

    assert asyncio.run(scene()) == ["anna", "bela", "clara"] * 100


def test_a_suspended_site_is_refused_from_then_on(services: Services, hospitals: list[Hospital]) -> None:
    (token, *_) = tokens(services, hospitals)

    async def scene() -> None:
        callers = Callers(services)
        await callers.of(token)
        await asyncio.to_thread(change_site, services, "anna", SiteEvent.SUSPEND, "operator:console")
        with pytest.raises(NotPermittedError):
            await callers.of(token)

    asyncio.run(scene())


def test_an_unknown_token_is_refused(services: Services) -> None:
    with pytest.raises(AuthenticationError):
        asyncio.run(Callers(services).of("no token"))


def test_calls_are_noted_for_all_sites_together(services: Services, hospitals: list[Hospital], clock: Clock) -> None:
    carried = tokens(services, hospitals)

    async def scene() -> None:
        callers = Callers(services)
        clock.now += 100.0
        for token in carried:
            await callers.of(token)
        clock.now += 100.0
        await callers.of(carried[0])
        await callers.noted()

    asyncio.run(scene())
    with services.reading() as session:
        seen = {name: stores.site(session, name).last_seen_at for name in ("anna", "bela", "clara")}
    assert seen == {"anna": clock.now, "bela": clock.now - 100.0, "clara": clock.now - 100.0}
