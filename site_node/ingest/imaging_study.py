"""One attempt to fetch one imaging study: what the PACS lists of it, less what is here, fetched and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from site_node.errors import PacsError
from site_node.ingest.answers import FoundInstance, instance_of, series_of
from site_node.ingest.pace import Pace
from site_node.ingest.pacs import Arrived, Pacs
from site_node.ingest.retrieval_journal import Entry, RetrievalJournal
from site_node.ingest.shelf import Shelf
from site_node.ingest.wanted import Wanted

VANISHED = "the PACS no longer has it"
NONE_WANTED = "none of its series fits the study's criteria"


@dataclass(frozen=True)
class ImagingStudyFetch:
    """What a run's attempts work with; `came` is told of each instance that is put away.

    `looked` are the imaging studies that the run has compared with what is here: only the first look tells what was
    here before.
    """

    pacs: Pacs
    journal: RetrievalJournal
    shelf: Shelf
    pace: Pace
    wanted: Wanted
    came: Callable[[], None]
    run: int
    looked: set[int] = field(default_factory=set)

    def attempt(self, entry: Entry) -> str | None:
        """Fetch what is missing of an imaging study; return a remark for the receipt, if there is one to make.

        Raises: PacsError if instances that the PACS lists are neither here nor quarantined afterwards.
        """
        self.shelf.check_room()
        listed = self._listed(entry)
        every = [instance for instances in listed.values() for instance in instances]
        missing = self._missing(entry, every)
        self.journal.listed(entry.number, len(every), len(every) - len(missing))
        if every and not missing and entry.number not in self.looked:
            self.journal.were_here(self.run, entry.number)
        self.looked.add(entry.number)
        said = None
        for series, instances in listed.items():
            missing = self._missing(entry, instances)
            if missing:
                said = self._fetch(entry, series, missing, whole=len(missing) == len(instances)) or said
        missing = self._missing(entry, every)
        quarantined = len(self.journal.quarantined(entry.number))
        self.journal.listed(entry.number, len(every), len(every) - len(missing) - quarantined)
        if missing:
            raise PacsError(f"{len(missing)} of {len(every)} instances did not come{f': {said}' if said else ''}")
        return self._remark(entry, len(every), quarantined)

    def _listed(self, entry: Entry) -> dict[str, list[FoundInstance]]:
        study = {"StudyInstanceUID": entry.subject}
        known = [series for answer in self.pacs.find("SERIES", study) if (series := series_of(answer)) is not None]
        if not known:
            raise PacsError(VANISHED, lasting=True)
        listed = {}
        for series in known:
            if self.wanted.admits_series(series):
                answers = self.pacs.find("IMAGE", study | {"SeriesInstanceUID": series.uid})
                found = {instance.uid: instance for a in answers if (instance := instance_of(a)) is not None}
                listed[series.uid] = list(found.values())
        return listed

    def _missing(self, entry: Entry, instances: Sequence[FoundInstance]) -> list[FoundInstance]:
        refused = self.journal.quarantined(entry.number)
        return [instance for instance in self.shelf.missing(instances) if instance.uid not in refused]

    def _fetch(self, entry: Entry, series: str, missing: Sequence[FoundInstance], *, whole: bool) -> str | None:
        expected = {instance.uid for instance in missing}
        stored = 0

        def receive(arrived: Arrived) -> None:
            nonlocal stored
            uid = arrived.announced.instance_uid
            if uid not in expected:
                return  # nobody asked for it: it may be outside the criteria
            expected.discard(uid)
            self.pace.instance()
            if self.shelf.put(arrived) is not None:
                self.journal.quarantine(entry.number, uid)
            else:
                stored += 1
            self.came()

        try:
            said = self.pacs.fetch(entry.subject, series, missing, whole=whole, receive=receive)
        finally:
            self.journal.stored(stored)
        for _ in range(len(expected) - len(self.shelf.missing(FoundInstance(uid, None) for uid in expected))):
            self.came()  # the PACS sent it to the listener (C-MOVE)
            self.pace.instance()
        return said

    def _remark(self, entry: Entry, listed: int, quarantined: int) -> str | None:
        if not listed:
            return NONE_WANTED
        if quarantined:
            return f"{quarantined} of {listed} instances came and are in quarantine"
        whole = self.wanted.criteria is None or not (self.wanted.criteria.modality or self.wanted.criteria.body_part)
        if whole and entry.announced is not None and entry.announced != listed:
            return f"the PACS counts {entry.announced} instances in it and lists {listed}"
        return None
