"""`train_hours` of site.yaml: the hours of the week in which a training may begin at this site.

    train_hours: "20:00-06:00"           # every night, in the machine's own time zone

    train_hours:
      hours: "20:00-06:00"
      days: [mon, tue, wed, thu, fri]    # the days on which the hours begin: the last night ends on Saturday at six
      time_zone: Europe/Berlin

What runs at their end is finished; what waits begins when they come again. The clock on the wall counts: in the night
in which it is set back, an hour that comes twice is open twice.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60
CLOCK = r"([01]\d|2[0-3]):[0-5]\d"


class TrainHours(BaseModel):
    """Hours that begin on some days of the week and end after less than a day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hours: str = Field(pattern=rf"^{CLOCK}-{CLOCK}$", description="from-until, past midnight if until is earlier")
    days: tuple[Day, ...] = Field(default=WEEK, min_length=1, description="days on which the hours begin")
    time_zone: str | None = Field(default=None, description="as in Europe/Berlin; without it the machine's own")

    @field_validator("hours")
    @classmethod
    def _some_hours(cls, value: str) -> str:
        if len(set(value.split("-"))) == 1:
            raise ValueError("the hours begin and end at the same time: leave train_hours out for the whole day")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None else ZoneInfo(value).key
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("this machine knows no such time zone: write it as in Europe/Berlin") from None

    def is_open(self, now: float) -> bool:
        """Tell whether a training may begin now.

        Units: `now` in seconds since 1970. Guarantee: open at the first minute, closed at the last one.
        """
        here = self._local(now)
        clock = here.time().replace(tzinfo=None)
        begins, ends = self._bounds
        if begins < ends:
            return begins <= clock < ends and self._begins_on(here)
        if clock >= begins:
            return self._begins_on(here)
        return clock < ends and self._begins_on(here - timedelta(days=1))

    def opens_at(self, now: float) -> float:
        """Return when a training may begin next: now, if it may now. Units: seconds since 1970."""
        if self.is_open(now):
            return now
        here = self._local(now)
        begins = self._bounds[0]
        for day in range(len(WEEK) + 1):
            moment = datetime.combine((here + timedelta(days=day)).date(), begins)
            candidate = moment.replace(tzinfo=here.tzinfo) if self.time_zone else moment.astimezone()
            if candidate.timestamp() > now and self._begins_on(candidate):
                return candidate.timestamp()
        raise AssertionError("a week holds one of its own days")

    @property
    def minutes_a_week(self) -> int:
        """Return how many minutes of a week they are, but for a change of the clock."""
        begins, ends = (at.hour * 60 + at.minute for at in self._bounds)
        return (ends - begins) % MINUTES_A_DAY * len(set(self.days))

    @property
    def _bounds(self) -> tuple[time, time]:
        begins, ends = (time.fromisoformat(part) for part in self.hours.split("-"))
        return begins, ends

    def _local(self, now: float) -> datetime:
        moment = datetime.fromtimestamp(now, UTC)
        return moment.astimezone(ZoneInfo(self.time_zone) if self.time_zone else None)

    def _begins_on(self, moment: datetime) -> bool:
        return WEEK[moment.weekday()] in self.days


def _as_block(value: Any) -> Any:
    return {"hours": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else value


TrainHoursEntry = Annotated[TrainHours, BeforeValidator(_as_block)]


def may_train(hours: TrainHours | None, now: float) -> bool:
    """Tell whether a training may begin now; without hours it always may."""
    return hours is None or hours.is_open(now)
