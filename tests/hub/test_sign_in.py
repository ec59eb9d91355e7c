"""Signing in after wrong passwords: who waits, how long, who does not, and that two processes count together."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import func, select

from compose.in_memory import InMemoryTransport
from hub.api.app import assemble
from hub.auth.coordinator import disable_person, person_token
from hub.auth.sign_in import check_password
from hub.auth.throttling import FORGOTTEN_AFTER_SECONDS, LIMITS, counters, delay_seconds
from hub.errors import AuthenticationError, SignInDelayedError
from hub.services import Services, open_services
from hub.storage.tables import SignInFailureRow
from tests.hub.conftest import PASSWORD, Clock

BASE_URL = "http://hub.test"
FREE = LIMITS["name-and-address"].free
HERE, THERE = "192.0.2.1", "192.0.2.2"


def fail(services: Services, times: int, name: str = "researcher", address: str = HERE) -> None:
    for _ in range(times):
        with pytest.raises(AuthenticationError, match="do not belong together"):
            check_password(services, name, "a wrong password", address)


def wait_of(services: Services, name: str = "researcher", address: str = HERE, password: str = PASSWORD) -> int:
    with pytest.raises(SignInDelayedError) as delayed:
        check_password(services, name, password, address)
    return delayed.value.seconds


def rows_of(services: Services) -> int:
    with services.reading() as session:
        return session.scalar(select(func.count()).select_from(SignInFailureRow)) or 0


@pytest.fixture(autouse=True)
def accounts(people: dict[str, str]) -> None:
    """Every test has its people."""


def test_a_few_wrong_passwords_cost_nothing_and_the_right_one_clears_them(services: Services) -> None:
    for _ in range(3):
        fail(services, FREE - 1)
        assert check_password(services, "researcher", PASSWORD, HERE).name == "researcher"
    assert rows_of(services) == 2  # the address and the name remember their failures, the person's own are forgotten


def test_who_signs_in_without_a_mistake_leaves_no_trace(services: Services) -> None:
    check_password(services, "researcher", PASSWORD, HERE)
    assert rows_of(services) == 0


def test_the_delay_doubles_up_to_its_longest_and_an_early_attempt_does_not_lengthen_it(
    services: Services, clock: Clock
) -> None:
    fail(services, FREE)
    waits = []
    for _ in range(12):
        wait = wait_of(services)
        assert wait_of(services, password="a wrong password") == wait
        waits.append(wait)
        clock.now += wait
        fail(services, 1)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_after_the_delay_the_right_password_signs_in(services: Services, clock: Clock) -> None:
    fail(services, FREE)
    clock.now += wait_of(services)
    assert person_token(services, "researcher", PASSWORD, HERE).name == "researcher"
    fail(services, FREE - 1)


def test_somebody_who_guesses_elsewhere_does_not_keep_the_person_out(services: Services, clock: Clock) -> None:
    fail(services, FREE)
    for _ in range(20):
        clock.now += wait_of(services, address=HERE)
        fail(services, 1, address=HERE)
        assert check_password(services, "researcher", PASSWORD, THERE)


def test_many_addresses_that_guess_at_one_name_are_slowed_together_and_never_for_long(services: Services) -> None:
    limit = LIMITS["name"]
    for number in range(limit.free):
        fail(services, 1, address=f"198.51.100.{number}")
    assert wait_of(services, address=THERE) == 1
    assert delay_seconds("name", limit.free + 1000, 0.0, 0.0) == limit.longest_seconds == 30


def test_an_address_that_tries_many_names_is_slowed_for_all_of_them(services: Services) -> None:
    for number in range(LIMITS["address"].free):
        fail(services, 1, name=f"nobody-{number}")
    assert wait_of(services, name="clinician") == 1
    assert check_password(services, "clinician", PASSWORD, THERE)


def test_a_name_that_does_not_exist_and_a_disabled_one_wait_as_long_as_any(services: Services) -> None:
    disable_person(services, "clinician", "operator:console")
    for name in ("nobody", "clinician", "Not A Name\0\udcff"):
        fail(services, FREE, name=name)
        assert wait_of(services, name=name) == 1


def test_failures_are_forgotten_an_hour_after_the_last(services: Services, clock: Clock) -> None:
    fail(services, FREE)
    clock.now += FORGOTTEN_AFTER_SECONDS
    assert rows_of(services) == 3
    clock.now += FORGOTTEN_AFTER_SECONDS
    fail(services, 1, name="nobody", address=THERE)
    assert rows_of(services) == 3  # those of the last one only


def test_a_clock_that_is_set_back_does_not_lengthen_a_delay() -> None:
    assert delay_seconds("name-and-address", FREE, failed_at=1000.0, now=0.0) == 1.0


def test_addresses_of_one_household_are_one(services: Services) -> None:
    secret = b"s" * 32
    one, same = counters("a", "2001:db8::1", secret), counters("a", "2001:db8::2", secret)
    assert one == same != counters("a", "2001:db8:1::1", secret)
    assert counters("a", "::ffff:192.0.2.1", secret) == counters("a", "192.0.2.1", secret)


def test_what_is_stored_names_neither_person_nor_address(services: Services) -> None:
    fail(services, 1)
    with services.reading() as session:
        stored = " ".join(session.scalars(select(SignInFailureRow.counter)))
    assert "researcher" not in stored
    assert HERE not in stored
    assert counters("researcher", HERE, b"s" * 32)["name"] not in stored  # it is keyed


def test_two_processes_count_together(services: Services, clock: Clock) -> None:
    other = open_services(replace(services.settings), lambda _name, _arguments: None, clock)
    try:
        fail(services, 3)
        fail(other, FREE - 3)
        assert wait_of(services) == wait_of(other) == 1
    finally:
        other.waker.close()
        other.database.close()


def test_attempts_made_side_by_side_are_not_more_than_those_made_in_turn(services: Services) -> None:
    answers: list[str] = []

    def guess() -> None:
        try:
            check_password(services, "researcher", "a wrong password", HERE)
        except AuthenticationError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=guess) for _ in range(3 * FREE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["not-authenticated"] * FREE + ["sign-in-delayed"] * (2 * FREE)


@pytest.fixture
def client(services: Services) -> Iterator[httpx.Client]:
    with httpx.Client(transport=InMemoryTransport(assemble(services)), base_url=BASE_URL) as opened:
        yield opened


def test_the_api_answers_429_with_the_seconds(client: httpx.Client) -> None:
    body = {"name": "researcher", "password": "a wrong password"}
    assert [client.post("/v1/token/person", json=body).status_code for _ in range(FREE)] == [401] * FREE
    answer = client.post("/v1/token/person", json={**body, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error"] == "sign-in-delayed"
    assert answer.json()["remedy"] == "Try again in 1 seconds."
