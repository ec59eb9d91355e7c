"""Write de-identified copies of a site's images into a folder, with a manifest and a report for quality control.

    OUT/<patient>/<imaging study>/<series>/<instance>.dcm      pseudonyms all
    OUT/manifest.csv     one line a copy: patient, instance, file, digest, and label and split of a research study
    OUT/report.json      what became of each attribute: keywords and counts, and what a person should look at
    OUT/.export.jsonl    how far the export has come

A copy is there whole or not at all. What is refused is counted by reason; which files they were is told to the site's
own folder alone (SITE/worker/exports), because names of files can name patients.
"""

import csv
import errno
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from protocol.digest import digest_of
from site_node.cohort_members import pseudonym_key
from site_node.dicom.deidentification_policy import FILE_NAME, DeidentificationPolicy
from site_node.dicom.deidentification_report import Report
from site_node.dicom.deidentified_file import deidentified_file
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.durable import write_durably
from site_node.errors import DeidentificationError, DiskFullError, SettingsError
from site_node.export_journal import Exported, Journal, open_journal
from site_node.export_selection import Chosen
from site_node.file_names import shown
from site_node.settings import SitePaths, SiteSettings, faults, read_yaml
from site_node.site_secrets import read_noise_key

MANIFEST_COLUMNS = ("patient_id", "sop_instance_uid", "file", "split", "imaging_study", "series", "sha256")
Progress = Callable[[int, int], None]


@dataclass
class ExportSummary:
    """What one run did, in counts: `copied` now, `kept` from before, `removed` because they no longer belong."""

    copied: int = 0
    kept: int = 0
    removed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    report: Report = field(default_factory=Report)
    refused_list: Path | None = None

    def as_json(self) -> dict[str, object]:
        """Return the summary as JSON."""
        counts = {"copied": self.copied, "kept": self.kept, "removed": self.removed}
        return counts | {"refused": dict(sorted(self.refused.items())), "look_at": self.report.warnings()}


def load_deidentification_policy(paths: SitePaths) -> DeidentificationPolicy:
    """Read SITE/deidentification.yaml; the careful default if there is none.

    Raises: SettingsError naming the faulty keys.
    """
    path = paths.root / FILE_NAME
    if not path.exists():
        return DeidentificationPolicy()
    try:
        return DeidentificationPolicy.model_validate(dict(read_yaml(path, "")))
    except ValidationError as error:
        raise SettingsError(f"{path} is not usable: {faults(error)}.", "See docs/deidentification.md.") from None


def site_pseudonyms(paths: SitePaths) -> Pseudonyms:
    """Return the pseudonyms of this site: the same in every export, and no key of the ledger's.

    Raises: SettingsError if the site's secret is missing.
    """
    return Pseudonyms(pseudonym_key(read_noise_key(paths.noise_key)))


def export_images(
    settings: SiteSettings,
    out: Path,
    chosen: Sequence[Chosen],
    selection: Mapping[str, object],
    label_column: str | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Copy these images into the folder; copies of an earlier, interrupted run of the same `selection` are kept.

    Guarantee: afterwards the folder holds the copies of these images, and of no others.
    Raises: SettingsError if the folder cannot take them; DiskFullError.
    """
    out = out.resolve()
    _check_place(settings, out)
    pseudonyms, policy = site_pseudonyms(settings.paths), load_deidentification_policy(settings.paths)
    made_by = pseudonyms.reference(f"policy {policy.digest}")
    journal = open_journal(out, pseudonyms.reference(f"selection {digest_of(dict(selection))}"), made_by)
    summary, refused = ExportSummary(), []
    sources: set[str] = set()
    for number, image in enumerate(chosen, start=1):
        source = _reference(image, pseudonyms)
        sources.add(source)
        if journal.done(source):
            summary.kept += 1
        else:
            try:
                journal.add(_export(image, source, out, policy, pseudonyms))
                summary.copied += 1
            except DeidentificationError as error:
                summary.refused[error.message] += 1
                refused.append((shown(image.path), error.message))
        if progress is not None:
            progress(number, len(chosen))
    summary.removed = journal.keep_only(frozenset(sources))
    _finish(settings, out, journal, summary, refused, label_column)
    return summary


def _export(image: Chosen, source: str, out: Path, policy: DeidentificationPolicy, pseudonyms: Pseudonyms) -> Exported:
    try:
        content = image.path.read_bytes()
    except OSError as error:
        raise DeidentificationError(
            f"the file cannot be opened: {(error.strerror or 'input error').lower()}"
        ) from error
    copy = deidentified_file(content, policy, pseudonyms, image.patient_id)
    parts = (copy.patient, copy.imaging_study or "no-study", copy.series or "no-series", f"{copy.instance}.dcm")
    target = out.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_durably(target, copy.content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("The disk of the export is full.", "Make room, and give the same command.") from error
        raise
    return Exported(
        source=source,
        file="/".join(parts),
        sha256=hashlib.sha256(copy.content).hexdigest(),
        patient_id=copy.patient,
        imaging_study=copy.imaging_study,
        series=copy.series,
        sop_instance_uid=copy.instance,
        label=image.label,
        split=image.split,
        report=copy.report.as_json(),
    )


def _reference(image: Chosen, pseudonyms: Pseudonyms) -> str:
    """Return a name for the file as it is now: another content, patient or label is another source."""
    try:
        status = image.path.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        state = "gone"
    return pseudonyms.reference(f"{image.path}\0{state}\0{image.patient_id}\0{image.label}\0{image.split}")


def _check_place(settings: SiteSettings, out: Path) -> None:
    for folder in (*settings.images, settings.paths.root):
        if out.is_relative_to(folder.resolve()):
            raise SettingsError(
                f"{out} lies in {folder}: the copies would be taken for the site's own images or files.",
                "Name a folder outside.",
            )


def _finish(
    settings: SiteSettings,
    out: Path,
    journal: Journal,
    summary: ExportSummary,
    refused: list[tuple[str, str]],
    label_column: str | None,
) -> None:
    entries = sorted(journal.entries.values(), key=lambda entry: entry.file)
    for entry in entries:
        summary.report.add(Report.from_json(entry.report))
    write_durably(out / "manifest.csv", _manifest(entries, label_column))
    document = {"copies": len(entries), "refused": dict(summary.refused), "look_at": summary.report.warnings()}
    document |= {"survivors": summary.report.survivors(), **summary.report.as_json()}
    write_durably(out / "report.json", json.dumps(document, indent=1, ensure_ascii=False).encode())
    if refused:
        folder = settings.paths.worker / "exports"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        summary.refused_list = folder / f"{hashlib.sha256(str(out).encode()).hexdigest()[:16]}-refused.csv"
        write_durably(summary.refused_list, _csv([("file", "reason"), *refused]), mode=0o600)


def _manifest(entries: Sequence[Exported], label_column: str | None) -> bytes:
    columns = MANIFEST_COLUMNS + ((label_column,) if label_column else ())
    rows = [[*(getattr(e, name) for name in MANIFEST_COLUMNS), *([e.label] if label_column else [])] for e in entries]
    return _csv([columns, *rows])


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
