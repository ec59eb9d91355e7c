"""A site's labels as one record for each image, wherever they are kept: in labels.csv, or in structured reports.

labels.csv labels instances, series, imaging studies or patients: the finest of the columns `sop_instance_uid`,
`series_instance_uid`, `study_instance_uid` and `patient_id` that it has. A row stands for every image of the index that
it names; where the file has no patient id, the image's header says whose it is.

A study's label column that site.yaml finds in reports (`reports: {column: concept}`) is read from them, and labels.csv
is not opened: a report labels the images that it names as its evidence, or all of its imaging study if it names none.
Words of the label columns are the study's or the site's own (`label_names`). A number that the site names as something
which the study does not learn is not read as a class's number.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from protocol.study import StudySpec
from site_node.cohort.annotation_table import IndexedAnnotation
from site_node.cohort.csv_file import PATIENT_COLUMN, class_number, columns_in, numbered, read_records
from site_node.cohort.index_database import IndexDatabase, IndexedImage
from site_node.cohort.labels import IF_UNREADABLE, INSTANCE_COLUMN
from site_node.label_settings import LabelSettings
from site_node.labels.naming import folded
from site_node.labels.structured_report import Report, read_report

SERIES_COLUMN, STUDY_COLUMN = "series_instance_uid", "study_instance_uid"
LEVELS = (INSTANCE_COLUMN, SERIES_COLUMN, STUDY_COLUMN, PATIENT_COLUMN)
"""The columns that name images, the finest first."""

NOBODYS = "label: no image in the index is of this imaging study or series, and the row names no patient"
UNREADABLE_REPORT = "report: it cannot be read, or is not complete"
SILENT_REPORT = "report: it says nothing of the study's concept"
REPLACED_REPORT = "report: a later one replaces it"
STRAY_REPORT = "report: no image that it names is in the index"

Record = dict[str, str]
Images = Mapping[str, Sequence[tuple[str, str | None]]]
"""(SOP instance UID, patient id) of the images that an identifier names."""


@dataclass(frozen=True)
class LabelRecords:
    """Where a study's records come from; `dropped` counts what gave none, by reason, while they are read."""

    database: IndexDatabase
    path: Path
    settings: LabelSettings
    classes: Sequence[str] = ()
    separator: str | None = None
    one_id: Callable[[str], str] = str
    takes_numbers: bool = False
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_study(
        cls,
        database: IndexDatabase,
        path: Path,
        study: StudySpec,
        settings: LabelSettings,
        one_id: Callable[[str], str],
    ) -> "LabelRecords":
        """Return the records of a study; the site's words count where they mean a class of it, or nothing."""
        classes = () if study.kind == "regression" else study.label.classes
        takes_numbers = bool(classes) and not study.label.several
        return cls(database, path, settings, classes, study.label.separator, one_id, takes_numbers)

    def of(self, columns: Sequence[str]) -> Iterator[Record]:
        """Yield a record for each image that is labelled, with these columns beside patient and instance.

        Raises: LabelsError if labels.csv is missing, is no such table, or lacks a column.
        """
        in_reports = bool(columns) and all(column in self.settings.reports for column in columns)
        for record in self._from_reports(columns) if in_reports else self._from_csv(columns):
            yield record | {column: self._meant(record[column]) for column in columns}

    def _from_csv(self, columns: Sequence[str]) -> Iterator[Record]:
        present = columns_in(self.path, IF_UNREADABLE)
        level = next((name for name in LEVELS if name in present), INSTANCE_COLUMN)
        if level == INSTANCE_COLUMN and (PATIENT_COLUMN in present or level not in present):
            yield from read_records(self.path, (PATIENT_COLUMN, INSTANCE_COLUMN, *columns), IF_UNREADABLE)
            return
        images = self._images_by(level)
        for record in read_records(self.path, (level, *columns), IF_UNREADABLE):
            yield from self._spread(record, level, images)

    def _spread(self, record: Record, level: str, images: Images) -> Iterator[Record]:
        name, patient = record[level], record.get(PATIENT_COLUMN, "")
        found = images.get(self.one_id(name) if level == PATIENT_COLUMN else name, ()) if name else ()
        for instance, own in found:
            yield record | {PATIENT_COLUMN: patient or own or "", INSTANCE_COLUMN: instance}
        if found:
            return
        if patient or not name:  # seen to be without images, or to be incomplete, as a row of an instance is
            yield record | {PATIENT_COLUMN: patient, INSTANCE_COLUMN: name}
        else:
            self.dropped[NOBODYS] += 1

    def _from_reports(self, columns: Sequence[str]) -> Iterator[Record]:
        reports = [(one, read_report(one.path)) for one in self.database.annotations() if one.header.kind == "sr"]
        replaced = {uid for _, report in reports if report is not None for uid in report.replaces}
        by_level = {level: self._images_by(level) for level in LEVELS[:3]} if reports else {}
        for one, report in reports:
            reason = self._why_not(one, report, replaced, columns)
            images = _images_of(one, by_level)
            if reason is None and not images:
                reason = STRAY_REPORT
            if reason is not None or report is None:
                self.dropped[reason or UNREADABLE_REPORT] += 1
                continue
            for values in self._values(report, columns):
                for instance, own in images:
                    yield {PATIENT_COLUMN: one.header.patient_id or own or "", INSTANCE_COLUMN: instance, **values}

    def _why_not(
        self, one: IndexedAnnotation, report: Report | None, replaced: set[str], columns: Sequence[str]
    ) -> str | None:
        if report is None or not report.complete:
            return UNREADABLE_REPORT
        if one.header.sop_instance_uid in replaced:
            return REPLACED_REPORT
        said = any(report.said_of(self.settings.reports[column]) for column in columns)
        return None if said else SILENT_REPORT

    def _values(self, report: Report, columns: Sequence[str]) -> Iterator[Record]:
        """Yield what a report says; of several values for one column, one record for each: they will contradict."""
        said = {column: self._words(report.said_of(self.settings.reports[column])) for column in columns}
        for number in range(max(map(len, said.values()))):
            yield {column: words[min(number, len(words) - 1)] if words else "" for column, words in said.items()}

    def _words(self, values: Iterable[tuple[str, ...]]) -> list[str]:
        words = [next((name for name in names if folded(name) in self._names), names[-1]) for names in values]
        return [self.separator.join(words)] if self.separator and words else words

    def _meant(self, word: str) -> str:
        parts = word.split(self.separator) if self.separator else [word]
        meant = [self._names.get(folded(part), part) for part in parts]
        return (self.separator or "").join(meant)

    @cached_property
    def _names(self) -> Mapping[str, str]:
        own = {"", *map(folded, self.classes)}
        given = {folded(local): meant for local, meant in self.settings.names.items()}
        meant = {local: word for local, word in given.items() if folded(word) in own}
        if not self.takes_numbers:
            return meant
        classes = numbered(self.classes)
        elsewhere = (local for local in given if local not in own and class_number(local, classes) is not None)
        return {local: f"{local}: {given[local]}" for local in elsewhere} | meant

    def _images_by(self, level: str) -> Images:
        images: defaultdict[str, list[tuple[str, str | None]]] = defaultdict(list)
        for image in self.database.pictures():
            name = _name_of(image, level)
            if name:
                images[name].append((image.header.sop_instance_uid, image.header.patient_id))
        return {name: tuple(dict.fromkeys(own)) for name, own in images.items()}


def _name_of(image: IndexedImage, level: str) -> str | None:
    name: str | None = getattr(image.header, level)
    return name


def _images_of(one: IndexedAnnotation, by_level: Mapping[str, Images]) -> list[tuple[str, str | None]]:
    header = one.header
    for level, names in ((INSTANCE_COLUMN, header.instances), (SERIES_COLUMN, header.series)):
        found = [image for name in names for image in by_level[level].get(name, ())]
        if found:
            return list(dict.fromkeys(found))
    if header.instances or header.series or header.study_instance_uid is None:
        return []
    return list(by_level[STUDY_COLUMN].get(header.study_instance_uid, ()))
