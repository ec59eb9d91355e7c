"""Mail that one process of the hub holds for all sites: nothing missed, nothing given to another, whatever is kept."""

import asyncio
import threading

import pytest
from sqlalchemy import Connection

from hub.api.mail_rounds import MailRounds
from hub.api.shared_call import SharedCall
from hub.rounds import delivery
from hub.rounds.delivery import Mailroom, mail_of
from hub.services import Services
from hub.storage import stores
from hub.storage.stores import add_mail
from tests.fakes.hospital import Hospital

pytestmark = pytest.mark.both_databases


def post(services: Services, site: str, text: str) -> None:
    with services.transaction() as session:
        add_mail(session, site, text.encode(), services.clock())


def texts(items: list[dict[str, object]] | None) -> list[object] | None:
    return None if items is None else [item["envelope"] for item in items]


def test_what_was_posted_before_a_look_is_known_after_it(services: Services, hospitals: list[Hospital]) -> None:
    room = Mailroom(services)
    room.refresh()
    post(services, "anna", "one")
    post(services, "bela", "two")
    post(services, "anna", "three")
    room.refresh()
    assert texts(room.known("anna", 0)) == ["one", "three"]
    first = mail_of(services, "anna", 0)[0]["number"]
    assert texts(room.known("anna", first)) == ["three"]
    assert texts(room.known("clara", 0)) == []


def test_mail_from_before_the_process_began_is_asked_of_the_database_once(
    services: Services, hospitals: list[Hospital]
) -> None:
    post(services, "anna", "old")
    number = mail_of(services, "anna", 0)[0]["number"]
    post(services, "bela", "newer")
    room = Mailroom(services)
    room.refresh()
    assert room.known("anna", 0) is None
    assert texts(room.ask("anna", 0)) == ["old"]
    assert room.known("anna", number) is None
    assert room.ask("anna", number) == []
    assert room.known("anna", number) == []  # now it is known that there was nothing else
    assert room.known("anna", 0) is None  # but who asks from further back is shown it again


def test_what_no_longer_fits_is_asked_of_the_database(
    services: Services, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "KEPT_BYTES", 10)
    room = Mailroom(services)
    room.refresh()
    for text in ("12345", "67890", "abcde"):
        post(services, "anna", text)
    room.refresh()
    assert room.known("anna", 0) is None
    assert texts(room.ask("anna", 0)) == ["12345", "67890", "abcde"]
    assert texts(room.known("anna", mail_of(services, "anna", 0)[0]["number"])) == ["67890", "abcde"]


def test_many_who_ask_at_once_share_a_look() -> None:
    calls: list[None] = []
    overlaps: list[bool] = []
    running = threading.Lock()

    def look(_names: frozenset[str]) -> None:
        overlaps.append(not running.acquire(blocking=False))
        calls.append(None)
        threading.Event().wait(0.02)
        running.release()

    async def scene() -> None:
        shared = SharedCall(look)
        await asyncio.gather(*(shared.done("anna") for _ in range(100)))
        assert len(calls) == 1
        first = asyncio.create_task(shared.done("anna"))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, *(shared.done("anna") for _ in range(100)))
        assert len(calls) == 3  # those who came during a look were served by one that began after they came

    asyncio.run(scene())
    assert not any(overlaps)


def test_a_failed_look_fails_those_who_asked_and_nobody_after() -> None:
    answers = iter([True, False])

    def look(_names: frozenset[str]) -> None:
        if next(answers):
            raise OSError("no database")

    async def scene() -> None:
        shared = SharedCall(look)
        with pytest.raises(OSError, match="no database"):
            await shared.done("anna")
        await shared.done("anna")

    asyncio.run(scene())


def test_a_look_is_told_all_whom_it_serves_and_nobody_else() -> None:
    async def scene() -> None:
        shared = SharedCall(sorted)
        first = asyncio.create_task(shared.done("anna"))
        await asyncio.sleep(0)  # the first look begins, alone
        await asyncio.sleep(0)
        clara, bela = await asyncio.gather(shared.done("clara"), shared.done("bela"))
        assert await first == ["anna"]
        assert clara == bela == ["bela", "clara"]

    asyncio.run(scene())


def test_each_site_gets_its_own_mail(services: Services, hospitals: list[Hospital]) -> None:
    async def scene() -> list[list[object] | None]:
        rounds = MailRounds(services)
        for site in ("anna", "bela", "clara"):
            await asyncio.to_thread(post, services, site, f"for {site}")
        found = await asyncio.gather(*(rounds.fetch(site, 0) for site in ("anna", "bela", "clara")))
        return [texts(items) for items in found]

    assert asyncio.run(scene()) == [["for anna"], ["for bela"], ["for clara"]]


def test_a_look_tells_for_whom_there_is_new_mail_and_tells_it_once(
    services: Services, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ROWS_AT_ONCE", 2)
    room = Mailroom(services)
    assert room.refresh() == []
    for site in ("bela", "anna", "bela", "clara", "bela"):
        post(services, site, "news")
    assert room.refresh() == ["bela", "anna", "clara"]
    assert room.refresh() == []


def test_whom_a_look_had_found_before_it_broke_off_is_told_by_the_next_one(
    services: Services, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Mailroom(services)
    room.refresh()
    post(services, "anna", "one")
    post(services, "bela", "two")
    monkeypatch.setattr(delivery, "ROWS_AT_ONCE", 1)
    read, asked = stores.mail_of_all, []

    def read_once(connection: Connection, after: int, most: int) -> list[tuple[int, str, bytes]]:
        asked.append(after)
        if len(asked) == 2:
            raise OSError("the database is gone")
        return read(connection, after, most)

    monkeypatch.setattr(stores, "mail_of_all", read_once)
    with pytest.raises(OSError, match="gone"):
        room.refresh()
    assert room.refresh() == ["anna", "bela"]
    assert room.refresh() == []


def test_a_reader_whose_wake_up_was_lost_is_woken_by_the_next_look_of_anybody(
    services: Services, hospitals: list[Hospital]
) -> None:
    async def scene() -> bool:
        rounds = MailRounds(services)
        with services.waker.listening("anna") as signal:
            await rounds.fetch("anna", 0)
            await asyncio.to_thread(post, services, "anna", "nobody was told of this")
            await rounds.fetch("bela", 0)
            return await signal.wait(10.0)

    assert asyncio.run(scene())


def test_a_process_looks_by_itself_and_goes_on_after_a_look_that_failed(
    services: Services, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([OSError("no database")])
    refresh = Mailroom.refresh

    def refreshed(room: Mailroom) -> list[str]:
        for failure in failures:
            raise failure
        return refresh(room)

    async def scene() -> bool:
        rounds = MailRounds(services)
        await rounds.fetch("anna", 0)
        monkeypatch.setattr(Mailroom, "refresh", refreshed)
        looking = asyncio.create_task(rounds.keep_looking(0.01))
        with services.waker.listening("anna") as signal:
            await asyncio.to_thread(post, services, "anna", "nobody was told of this")
            woken = await signal.wait(10.0)
        looking.cancel()
        return woken

    assert asyncio.run(scene())
    assert list(failures) == []
