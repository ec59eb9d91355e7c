"""Waking a site's long poll when mail has come: within the process, or across processes through Redis.

Only the sites' names travel, those of one commit together; what woke them is read from the database. A wake-up may be
lost (a dead Redis, a wake-up just before somebody listens), so each process looks for new mail at least every
`poll_seconds` (`hub/api/mail_rounds.py`); when the connection to Redis is there again, all its readers look.
"""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog

from hub.crowds import Crowd

CHANNEL = "wardround:wake"
REDIS_POLL_SECONDS = 5.0
REDIS_RETRY_SECONDS = 1.0
REDIS_ANSWER_SECONDS = 2.0
_log = structlog.get_logger()


class Signal:
    """One reader's ear: `heard` is set on the loop that made it, and awaited there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heard = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait until woken or the time is over; tell whether woken, and be ready for the next."""
        try:
            async with asyncio.timeout(seconds):
                await self.heard.wait()
        except TimeoutError:
            return False
        self.heard.clear()
        return True


class Waker(Protocol):
    """How mail announces itself."""

    @property
    def poll_seconds(self) -> float:
        """How long a process may rely on its readers being woken, before it looks for new mail by itself."""

    def wake(self, *sites: str) -> None:
        """Wake the sites' readers in all processes; from any thread, never raises."""

    def wake_here(self, *sites: str) -> None:
        """Wake the sites' readers in this process; from any thread, never raises."""

    def listening(self, site: str) -> AbstractContextManager[Signal]:
        """Return a context manager giving a `Signal`: begin to listen *before* looking into the mailbox."""

    async def wait(self, site: str, seconds: float) -> None:
        """Wait until the site is woken or the time is over."""

    def close(self) -> None:
        """Stop; readers that still wait run into their time."""


class LocalWaker:
    """Wakes readers of this process."""

    poll_seconds = float("inf")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signals: dict[str, set[Signal]] = {}
        self._crowds: WeakKeyDictionary[asyncio.AbstractEventLoop, Crowd] = WeakKeyDictionary()

    def wake(self, *sites: str) -> None:
        """Wake the sites' readers, in the order of the names; from any thread."""
        with self._lock:
            self._wake(signal for site in sites for signal in self._signals.get(site, ()))

    wake_here = wake

    def wake_all(self) -> None:
        """Wake every reader of this process."""
        with self._lock:
            self._wake(signal for group in self._signals.values() for signal in group)

    def _wake(self, signals: Iterable[Signal]) -> None:
        readers: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
        for signal in signals:
            readers.setdefault(signal.loop, []).append(signal.heard)
        for loop, heard in readers.items():
            with suppress(RuntimeError):  # a loop that has ended wakes nobody any more
                loop.call_soon_threadsafe(self._crowds.setdefault(loop, Crowd()).wake, heard)

    @contextmanager
    def listening(self, site: str) -> Iterator[Signal]:
        """Give a signal that is set from now on."""
        signal = Signal()
        with self._lock:
            self._signals.setdefault(site, set()).add(signal)
        try:
            yield signal
        finally:
            with self._lock:
                self._signals[site].discard(signal)
                if not self._signals[site]:
                    del self._signals[site]

    async def wait(self, site: str, seconds: float) -> None:
        """Wait until the site is woken or the time is over."""
        with self.listening(site) as signal:
            await signal.wait(seconds)

    def close(self) -> None:
        """Nothing to stop."""


class RedisWaker:
    """Wakes readers of all processes of the hub: publishes, and listens in a thread of its own once somebody waits."""

    poll_seconds = REDIS_POLL_SECONDS

    def __init__(self, url: str) -> None:
        import redis

        # Celery writes a Unix socket as redis+socket://, the redis package as unix://.
        address = url.replace("redis+socket://", "unix://", 1)
        self._redis = redis.Redis.from_url(
            address,
            socket_connect_timeout=REDIS_ANSWER_SECONDS,
            socket_timeout=REDIS_ANSWER_SECONDS,
            health_check_interval=10,
        )
        self._errors = (redis.RedisError, OSError)
        self._local = LocalWaker()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self, *sites: str) -> None:
        """Wake the sites' readers in this process at once and those in others through Redis."""
        self._local.wake(*sites)
        try:
            self._redis.publish(CHANNEL, " ".join(sites))
        except self._errors:
            _log.warning("redis_not_reached", doing="wake", remedy="the other processes look for mail by themselves")

    def wake_here(self, *sites: str) -> None:
        """Wake the sites' readers in this process."""
        self._local.wake(*sites)

    @contextmanager
    def listening(self, site: str) -> Iterator[Signal]:
        """Give a signal that is set from now on."""
        with self._local.listening(site) as signal:
            self._start()  # afterwards: who listens is there when the thread first wakes everybody
            yield signal

    async def wait(self, site: str, seconds: float) -> None:
        """Wait until the site is woken or the time is over."""
        with self.listening(site) as signal:
            await signal.wait(seconds)

    def close(self) -> None:
        """Stop the thread and drop the connections."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * REDIS_RETRY_SECONDS)
        with suppress(*self._errors):
            self._redis.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="wardround-waker", daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._relay()
            except self._errors:
                self._closed.wait(REDIS_RETRY_SECONDS)

    def _relay(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            self._local.wake_all()  # what was published while nobody listened is lost
            while not self._closed.is_set():
                message = channel.get_message(timeout=REDIS_RETRY_SECONDS)
                if message is not None:
                    self._local.wake(*message["data"].decode().split())


def waker_for(redis_url: str | None) -> Waker:
    """Return the waker of a hub: through Redis if it has one, else the one of this process.

    A wake-up too many costs a look into a mailbox, so that everything in a process may share one.
    """
    return _IN_THIS_PROCESS if redis_url is None else RedisWaker(redis_url)


_IN_THIS_PROCESS = LocalWaker()
