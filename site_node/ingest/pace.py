"""How hard a PACS is asked: evenly spaced, and only in the hours that the hospital allows.

The clock and the way to rest are given, so that tests need not wait.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from site_node.pacs_settings import PacsSettings

SECONDS_A_MINUTE = 60.0


@dataclass
class Spacing:
    """Events at an even distance; without a rate none waits."""

    per_minute: float | None
    _free_at: float = field(default=float("-inf"))

    def wait_seconds(self, now: float) -> float:
        """Return how long the next event must wait, and count it."""
        if self.per_minute is None:
            return 0.0
        at = max(now, self._free_at)
        self._free_at = at + SECONDS_A_MINUTE / self.per_minute
        return at - now


def seconds_until_open(hours: str | None, now: datetime) -> float:
    """Return how long it is until the hours of the day begin; 0 within them. `19-6` goes over midnight."""
    if hours is None:
        return 0.0
    begin, end = (int(hour) for hour in hours.split("-"))
    within = begin <= now.hour < end if begin < end else now.hour >= begin or now.hour < end
    if within:
        return 0.0
    opens = now.replace(hour=begin, minute=0, second=0, microsecond=0)
    return ((opens if opens > now else opens + timedelta(days=1)) - now).total_seconds()


class Pace:
    """What one run may ask of the PACS; `rest` sleeps, and raises if the run is to stop."""

    def __init__(
        self,
        settings: PacsSettings,
        rest: Callable[[float], None],
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._studies = Spacing(settings.studies_per_minute)
        self._instances = Spacing(settings.instances_per_minute)
        self._hours = settings.hours
        self._rest, self._monotonic, self._now = rest, monotonic, now

    def closed_seconds(self) -> float:
        """Return how long it is until a study may be begun by the hours of the day."""
        return seconds_until_open(self._hours, self._now())

    def study(self) -> None:
        """Wait until the next imaging study may be begun."""
        while (closed := self.closed_seconds()) > 0:
            self._rest(closed)
        self._rest(self._studies.wait_seconds(self._monotonic()))

    def instance(self) -> None:
        """Wait until the next instance may be taken."""
        self._rest(self._instances.wait_seconds(self._monotonic()))
