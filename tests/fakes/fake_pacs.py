"""A PACS in memory, whose faults a test chooses, and a clock that no test waits for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from site_node.errors import PacsAwayError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.pacs import Level, Receive, TruncatedAnswerError
from site_node.ingest.part10 import arrived_from
from site_node.ingest.retrieving import StoppedError

STARTS = datetime(2026, 3, 2, 12, 0, 0)


@dataclass
class FakeClock:
    """Time that passes only while somebody rests; `stop_after` ends the run at that second."""

    seconds: float = 0.0
    stop_after: float = float("inf")
    starts: datetime = STARTS

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.starts + timedelta(seconds=self.seconds)

    def rest(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds >= self.stop_after:
            raise StoppedError


@dataclass
class FakePacs:
    """Holds instances as (data set, bytes of its file). `before_fetch` and `before_find` may raise what they like."""

    clock: FakeClock
    instances: list[tuple[Dataset, bytes]] = field(default_factory=list)
    away_until: float = 0.0
    answers_at_most: int = 10_000
    before_find: Callable[[Level, Mapping[str, str]], None] = lambda level, keys: None
    before_fetch: Callable[[str], None] = lambda study: None
    loses: Callable[[str], bool] = lambda instance: False
    sent: list[str] = field(default_factory=list)
    asked: list[tuple[Level, dict[str, str]]] = field(default_factory=list)

    def echo(self) -> str:
        self._be_there()
        return "here"

    def find(self, level: Level, keys: Mapping[str, str]) -> list[Dataset]:
        self._be_there()
        self.asked.append((level, dict(keys)))
        self.before_find(level, keys)
        name = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        found: dict[str, Dataset] = {}
        for dataset, _ in self.instances:
            if all(_matches(dataset, keyword, value) for keyword, value in keys.items()):
                found.setdefault(str(dataset[name].value), self._answer(dataset))
        if level == "STUDY" and len(found) > self.answers_at_most:
            raise TruncatedAnswerError
        return list(found.values())

    def fetch(
        self, study: str, series: str, instances: Sequence[FoundInstance], *, whole: bool, receive: Receive
    ) -> str | None:
        self._be_there()
        self.before_fetch(study)
        wanted = {instance.uid: instance for instance in instances}
        for dataset, data in self.instances:
            instance = wanted.get(str(dataset.SOPInstanceUID))
            if instance is not None and not self.loses(instance.uid):
                self.sent.append(instance.uid)
                receive(arrived_from(data, instance))
        return None

    def close(self) -> None:
        return None

    def _answer(self, dataset: Dataset) -> Dataset:
        answer = Dataset()
        answer.update({element.tag: element for element in dataset if element.keyword != "PixelData"})
        answer.ModalitiesInStudy = dataset.Modality
        same = [d for d, _ in self.instances if d.StudyInstanceUID == dataset.StudyInstanceUID]
        answer.NumberOfStudyRelatedInstances = len(same)
        return answer

    def _be_there(self) -> None:
        if self.clock.seconds < self.away_until:
            raise PacsAwayError("the PACS does not answer")


def _matches(dataset: Dataset, keyword: str, wanted: str) -> bool:
    value = str(dataset.get("Modality" if keyword == "ModalitiesInStudy" else keyword, ""))
    if keyword == "StudyDate" and "-" in wanted:
        first, last = wanted.split("-")
        return (first or "0") <= value <= (last or "9")
    return value == wanted
