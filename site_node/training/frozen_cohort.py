"""A study's cohort, frozen when it is counted, kept on the worker's own disk, the same for every task of the study.

Approval and privacy ledger speak of these patients and their number. Images that arrive later, or a changed
labels.csv, do not enter a running study; a new study sees them.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from protocol.digest import canonical_json, hex_of, parse_json
from protocol.errors import DigestError
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.durable import write_durably
from site_node.errors import CohortError
from site_node.file_names import stored


def freeze_cohort(folder: Path, study_digest: str, cohort: Cohort) -> None:
    """Freeze a study's cohort. Only the order that counts it does, before the study is approved."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(_place(folder, study_digest), canonical_json(_document(cohort)), mode=0o600)


def frozen_cohort(folder: Path, study_digest: str) -> Cohort:
    """Return the study's cohort as it was frozen.

    Raises: CohortError if it is missing or damaged: the ledger was charged for those patients and no others.
    """
    path = _place(folder, study_digest)
    if not path.exists():
        raise CohortError(
            "The frozen cohort of a study is missing.", "Stop the study at the hub; a new study freezes a new cohort."
        )
    return _read(path)


def _place(folder: Path, study_digest: str) -> Path:
    return folder / f"{hex_of(study_digest)}.json"


def _document(cohort: Cohort) -> dict[str, Any]:
    patients = [asdict(patient) for patient in cohort.patients]
    for patient in patients:
        patient["images"] = [{**image, "path": _written(image["path"])} for image in patient["images"]]
    return {"manifest_digest": cohort.manifest_digest, "dropped": dict(cohort.dropped), "patients": patients}


def _read(path: Path) -> Cohort:
    try:
        document = parse_json(path.read_bytes())
        patients = tuple(_patient(entry) for entry in document["patients"])
        return Cohort(patients, document["manifest_digest"], document["dropped"])
    except (DigestError, KeyError, TypeError, ValueError):
        raise CohortError(
            "The frozen cohort of a study is damaged.", "Stop the study at the hub; a new study freezes a new cohort."
        ) from None


def _patient(entry: dict[str, Any]) -> Patient:
    images = tuple(ImageRef(**{**image, "path": _path(image["path"])}) for image in entry["images"])
    return Patient(**{**entry, "images": images})


def _written(path: Path) -> str | dict[str, str]:
    name = stored(str(path))
    return name if isinstance(name, str) else {"bytes": name.hex()}  # a name that is not UTF-8 is no JSON text


def _path(written: str | dict[str, str]) -> Path:
    return Path(written if isinstance(written, str) else os.fsdecode(bytes.fromhex(written["bytes"])))
