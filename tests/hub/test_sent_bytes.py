"""The traffic of downloads: those that end while others are written are written together, and none is lost."""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping

import pytest

from hub.api import sent_bytes
from hub.api.sent_bytes import SentBytes
from hub.services import Services


def test_downloads_that_end_while_one_is_written_are_counted_by_one_transaction(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, int]] = []
    begun, others_ended = threading.Event(), threading.Event()

    def write(_services: Services, counts: Mapping[str, int]) -> None:
        begun.set()
        others_ended.wait(30)
        written.append(dict(counts))

    monkeypatch.setattr(sent_bytes, "count_sent", write)

    async def scene() -> None:
        counted = SentBytes(services)
        first = asyncio.create_task(counted.add("task-0", 7))
        await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.create_task(counted.add(f"task-{number % 5}", 10 + number)) for number in range(1, 20)]
        await asyncio.sleep(0)  # all have said what they sent
        others_ended.set()
        await asyncio.gather(first, *others)

    asyncio.run(scene())
    assert len(written) == 2
    expected = Counter({"task-0": 7})
    for number in range(1, 20):
        expected[f"task-{number % 5}"] += 10 + number
    assert sum((Counter(counts) for counts in written), Counter()) == expected
