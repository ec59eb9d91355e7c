"""From what is wanted to imaging studies in the journal: the questions to the PACS, and what to do with its answers."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from site_node.errors import PacsAwayError, PacsError, PacsRefusedError
from site_node.ingest.answers import FoundStudy, study_of
from site_node.ingest.pacs import Level, TruncatedAnswerError
from site_node.ingest.retrieval_journal import RetrievalJournal
from site_node.ingest.wanted import CRITERIA_OF_SERIES, Listed, Wanted, halves

UNKNOWN = "the PACS knows no imaging study with this accession number"
OUTSIDE = "the PACS has it, outside the study's criteria or the dates"
Find = Callable[[Level, Mapping[str, str]], list[Dataset]]


@dataclass(frozen=True)
class Planning:
    """One run's questions. `found` is told after each answer."""

    run: int
    wanted: Wanted
    find: Find
    journal: RetrievalJournal
    again: bool
    found: Callable[[], None]

    def plan(self) -> None:
        """Ask for everything that is wanted and note it in the journal.

        Raises: PacsError if the PACS does not answer a question whole; what it did answer is planned.
        """
        if self.wanted.listed is None:
            for question in self.wanted.questions():
                for study in self._whole_answer(question):
                    if self.wanted.admits_study(study):
                        self._plan(study, None)
                self.found()
            return
        for listed in self.wanted.listed:
            reason = listed.fault or self._plan_listed(listed)
            if reason is not None:
                self.journal.not_found(self.run, listed.accession, scope_of(self.wanted), listed.line, reason)
            self.found()

    def _plan_listed(self, listed: Listed) -> str | None:
        """Plan the imaging studies of one accession number; return why there are none."""
        try:
            answers = self._studies({"AccessionNumber": listed.accession})
        except (PacsAwayError, PacsRefusedError):
            raise
        except PacsError as error:
            return error.message
        # a PACS that cannot match accession numbers answers with everything
        known = [study for study in answers if study.accession == listed.accession]
        admitted = [study for study in known if self.wanted.admits_study(study)]
        for study in admitted:
            self._plan(study, listed.line)
        return None if admitted else OUTSIDE if known else UNKNOWN

    def _plan(self, study: FoundStudy, line: int | None) -> None:
        self.journal.plan(
            self.run,
            study.uid,
            scope_of(self.wanted),
            accession=study.accession,
            announced=study.announced,
            line=line,
            again=self.again,
        )

    def _whole_answer(self, question: dict[str, str]) -> Iterator[FoundStudy]:
        try:
            answers = self._studies(question)
        except TruncatedAnswerError:
            parts = halves(question)
            if parts is None:
                raise
            for part in parts:
                yield from self._whole_answer(part)
            return
        yield from answers

    def _studies(self, question: Mapping[str, str]) -> list[FoundStudy]:
        found = (study_of(answer) for answer in self.find("STUDY", question))
        return [study for study in found if study is not None]


def scope_of(wanted: Wanted) -> str:
    """Return which series of an imaging study are wanted, the same text for the same criteria."""
    criteria = wanted.criteria
    terms = {name: getattr(criteria, name) for name in CRITERIA_OF_SERIES} if criteria else {}
    return json.dumps(
        {name: sorted({term.strip().upper() for term in words}) for name, words in terms.items() if words}
    )
