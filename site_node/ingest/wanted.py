"""Which imaging studies and series are wanted: the cohort's criteria of a study, a list of accession numbers, dates.

A criterion keeps back only what the PACS itself says to be outside it, by the same comparison as the index's. Where the
PACS is silent the images are fetched, and the index, which reads their headers, decides. Nothing here talks to a PACS.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from protocol.cohort_terms import Cohort as Criteria
from site_node.cohort.query import Facts, unmet_criterion
from site_node.cohort.terms import same_term, terms_of
from site_node.dicom.headers import date_of
from site_node.errors import SettingsError
from site_node.ingest.answers import FoundSeries, FoundStudy

MAX_LIST_BYTES = 16 << 20
MAX_ACCESSION_LENGTH = 16  # DICOM PS3.5: the value representation SH
COLUMNS = ("accession_number", "accessionnumber", "accession")
UNUSABLE = re.compile(r"[*?\\\x00-\x1f\x7f]")  # wildcards would fetch whatever they match
WINDOW_DAYS = 31
CRITERIA_OF_SERIES = ("modality", "body_part", "manufacturer", "protocol", "series_description")
"""The criteria that a PACS may answer of a series; `FoundSeries` has a field of each name."""


@dataclass(frozen=True)
class Listed:
    """One line of the list; `fault` says why it cannot be asked for."""

    line: int
    accession: str
    fault: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What one run fetches: what the list (if there is one), the criteria and the dates all admit."""

    criteria: Criteria | None = None
    listed: tuple[Listed, ...] | None = None
    since: date | None = None
    until: date | None = None

    @property
    def first_day(self) -> date | None:
        """Return the earliest imaging study's day: the later of what is asked for and the criteria."""
        return max(_given(self.since, self.criteria.date_from if self.criteria else None), default=None)

    @property
    def last_day(self) -> date | None:
        """Return the latest imaging study's day: the earlier of what is asked for and the criteria."""
        return min(_given(self.until, self.criteria.date_until if self.criteria else None), default=None)

    def questions(self) -> Iterator[dict[str, str]]:
        """Yield what the PACS is asked for at the level of imaging studies, without a list: modality and dates.

        One question each modality and month, a PACS cuts long answers short; and one each retired term of a modality,
        because a PACS compares letter by letter.
        """
        modalities = self._modalities() or [""]
        for first, last in self._windows():
            for modality in modalities:
                keys = {"ModalitiesInStudy": modality, "StudyDate": date_range(first, last)}
                yield {keyword: value for keyword, value in keys.items() if value}

    def admits_study(self, found: FoundStudy) -> bool:
        """Tell whether an imaging study may hold what is wanted, as far as the PACS says."""
        day = date_of(found.study_date)
        if day and not (self.first_day or day) <= day <= (self.last_day or day):
            return False
        if self.criteria is None:
            return True
        held, asked = {same_term("modality", word) for word in found.modalities}, set(self._modalities())
        if held and asked and not held & asked:
            return False
        known = _as_far_as_known(self.criteria, sex=found.sex, age_years=found.age_years)
        return unmet_criterion(Facts(None, None, None, found.sex, found.age_years), known) is None

    def admits_series(self, series: FoundSeries) -> bool:
        """Tell whether a series may be wanted, as far as the PACS says."""
        if self.criteria is None:
            return True
        said = {name: getattr(series, name) for name in CRITERIA_OF_SERIES}
        facts = Facts(**{"view": None, "sex": None, "age_years": None} | said)
        return unmet_criterion(facts, _as_far_as_known(self.criteria, **said)) is None

    def _modalities(self) -> list[str]:
        words = self.criteria.modality if self.criteria else []
        return list(dict.fromkeys(term for word in words for term in terms_of("modality", word)))

    def _windows(self) -> Iterator[tuple[date | None, date | None]]:
        if self.first_day is None:
            yield None, self.last_day
            return
        first, end = self.first_day, self.last_day or date.today()
        while first <= end:
            last = min(first + timedelta(days=WINDOW_DAYS - 1), end)
            yield first, last
            first = last + timedelta(days=1)


def date_range(first: date | None, last: date | None) -> str:
    """Write a range of days as DICOM matches it; empty if it is open on both sides."""
    if first is None and last is None:
        return ""
    begin, end = (f"{day:%Y%m%d}" if day else "" for day in (first, last))
    return begin if begin == end else f"{begin}-{end}"


def halves(question: dict[str, str]) -> tuple[dict[str, str], dict[str, str]] | None:
    """Divide a question's days in two, for a PACS that cut its answer short; None if they cannot be divided."""
    days = re.fullmatch(r"(\d{8})-(\d{8})", question.get("StudyDate", ""))
    if days is None:
        return None
    first, last = (date(int(d[:4]), int(d[4:6]), int(d[6:])) for d in days.groups())
    middle = first + (last - first) // 2
    ranges = (date_range(first, middle), date_range(middle + timedelta(days=1), last))
    return {**question, "StudyDate": ranges[0]}, {**question, "StudyDate": ranges[1]}


def read_accessions(path: Path) -> tuple[Listed, ...]:
    """Read a list of accession numbers: one a line, or a CSV with the column accession_number; a number is asked once.

    Raises: SettingsError if the file is missing, too large or holds none; what it holds is never quoted.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_LIST_BYTES else None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.") from None
    if data is None:
        raise SettingsError(f"{path.name} is larger than {MAX_LIST_BYTES} bytes.", "Is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    listed: dict[str, Listed] = {}
    for line, number in _numbers(path, text):
        if number:
            listed.setdefault(number, Listed(line, number, _fault(number)))
    if not listed:
        raise SettingsError(f"{path.name} holds no accession number.", "Write one a line, or a CSV with a header line.")
    return tuple(listed.values())


def _numbers(path: Path, text: str) -> Iterator[tuple[int, str]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"').lower().replace(" ", "_") for name in header.split(delimiter)]
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None and len(names) > 1:
        raise SettingsError(
            f"{path.name} has several columns and none is called accession_number.", "Name the column so."
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if column is None:
                yield reader.line_num, "".join(row).strip()
            elif reader.line_num > 1 and len(row) > column:
                yield reader.line_num, row[column].strip()
    except csv.Error:
        raise SettingsError(f"{path.name} is no table (line {reader.line_num}).", "Save it as CSV, UTF-8.") from None


def _fault(number: str) -> str | None:
    if UNUSABLE.search(number):
        return "the accession number holds a character that a query reads as a wildcard or a separator"
    if len(number) > MAX_ACCESSION_LENGTH:
        return f"the accession number is longer than DICOM's {MAX_ACCESSION_LENGTH} characters"
    return None


def _given(*days: date | None) -> Iterator[date]:
    return (day for day in days if day is not None)


def _as_far_as_known(criteria: Criteria, **facts: object) -> Criteria:
    """Return the criteria that facts speak of, those left out that nothing is known about."""
    said = {name for name, value in facts.items() if value is not None}
    ages = {"age_min_years": criteria.age_min_years, "age_max_years": criteria.age_max_years}
    kept: dict[str, object] = {name: getattr(criteria, name) for name in said - {"age_years"}}
    return Criteria.model_validate(kept | (ages if "age_years" in said else {}))
