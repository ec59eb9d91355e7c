"""Readers that are woken together: a few at once, many in groups, all of them, and slower where the loop is late."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import crowds
from hub.crowds import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, WOKEN_AT_ONCE, Crowd, pause_after


def woken(readers: list[asyncio.Event]) -> int:
    return sum(reader.is_set() for reader in readers)


def test_a_handful_is_woken_at_once() -> None:
    async def scene() -> int:
        readers = [asyncio.Event() for _ in range(WOKEN_AT_ONCE)]
        Crowd().wake(readers)
        return woken(readers)

    assert asyncio.run(scene()) == WOKEN_AT_ONCE


def test_a_crowd_is_woken_group_by_group_in_the_order_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "WOKEN_AT_ONCE", 3)

    async def scene() -> None:
        readers = [asyncio.Event() for _ in range(8)]
        Crowd().wake(readers)
        assert [reader.is_set() for reader in readers] == [True] * 3 + [False] * 5
        await readers[3].wait()
        assert [reader.is_set() for reader in readers] == [True] * 6 + [False] * 2
        await readers[-1].wait()
        assert woken(readers) == 8

    asyncio.run(scene())


def test_who_comes_while_a_crowd_is_woken_comes_behind_it_and_is_woken_once_however_often_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowds, "WOKEN_AT_ONCE", 2)

    async def scene() -> None:
        crowd, readers = Crowd(), [asyncio.Event() for _ in range(5)]
        crowd.wake(readers[:4])
        crowd.wake([readers[3], readers[4], readers[4]])
        assert woken(readers) == 2
        await readers[4].wait()
        assert woken(readers) == 5
        readers[4].clear()
        await asyncio.sleep(3 * PAUSE_SECONDS)
        assert not readers[4].is_set()
        crowd.wake([readers[4]])  # the crowd is through: the next one begins at once
        assert readers[4].is_set()

    asyncio.run(scene())


@given(st.floats(-1.0, 1e6), st.floats(-1.0, 1e6))
def test_a_loop_that_is_later_is_given_no_less_time_and_never_more_than_the_longest(one: float, two: float) -> None:
    earlier, later = sorted((one, two))
    assert PAUSE_SECONDS <= pause_after(earlier) <= pause_after(later) <= LONGEST_PAUSE_SECONDS
    assert pause_after(0.0) == PAUSE_SECONDS
