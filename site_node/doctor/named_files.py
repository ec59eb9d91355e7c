"""The tables that site.yaml names: they are there, this user may read them, and they have their columns.

A merge table or a list of opt-outs that is missing stops every cohort; so does a labels.csv, of a study of images. What
stands in the rows is `site check`'s to judge, beside a study.
"""

from collections.abc import Callable
from pathlib import Path

from site_node.cohort.csv_file import PATIENT_COLUMN, columns_in, read_records
from site_node.cohort.identities import read_identities
from site_node.cohort.label_records import LEVELS
from site_node.cohort.labels import IF_UNREADABLE
from site_node.doctor.finding import Finding, fine, problem
from site_node.errors import LabelsError
from site_node.settings import SiteSettings, read_yaml

IF_NO_TABLE = "Put the table there, or name another in site.yaml (table)."


def examine(settings: SiteSettings) -> list[Finding]:
    """Look into each table that site.yaml names, and into a labels.csv that lies beside the images unnamed."""
    merges, opt_outs = settings.merged_patients, settings.excluded_patients
    named = read_yaml(settings.paths.configuration, "Make the site first.")
    labels = settings.labels if named.get("labels") or settings.labels.exists() else None
    found = (
        _looked_into("labels", labels, _check_labels),
        _looked_into("table", settings.table, _check_table),
        _looked_into("merged_patients", merges, lambda path: read_identities(path, None)),
        _looked_into("excluded_patients", opt_outs, lambda path: read_identities(None, path)),
    )
    return [finding for finding in found if finding is not None]


def _looked_into(key: str, path: Path | None, check: Callable[[Path], object]) -> Finding | None:
    if path is None:
        return None
    try:
        check(path)
    except LabelsError as error:
        return problem(key, error.message, error.remedy)
    return fine(key, f"{path} can be read and has its columns.")


def _check_labels(path: Path) -> None:
    if set(LEVELS).isdisjoint(columns_in(path, IF_UNREADABLE)):
        raise LabelsError(
            f"{path.name} has no column that says whose a label is.",
            f"Its first line names one of {', '.join(LEVELS)}.",
        )


def _check_table(path: Path) -> None:
    next(read_records(path, (PATIENT_COLUMN,), IF_NO_TABLE), None)
