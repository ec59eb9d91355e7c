"""A study's cohort, frozen when it is counted, kept on the worker's own disk, the same for every task of the study.

Approval and privacy ledger speak of these patients and their number. Images that arrive later, or a changed
labels.csv, do not enter a running study; a new study sees them. A tabular study's rows are kept too, in a file beside.
A task reads it as `approved_cohort`: by content the one that was charged, whoever wrote the file.
"""

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.digest import canonical_json, digest_of_bytes, hex_of, parse_json
from protocol.errors import DigestError
from site_node.cohort.cohort import Cohort, ImageRef, Patient, manifest_digest_of
from site_node.cohort_members import COHORT_SUFFIX, VALUES_SUFFIX
from site_node.durable import write_durably
from site_node.errors import CohortError
from site_node.file_names import stored
from site_node.labels.masks import MaskRef


def freeze_cohort(folder: Path, study_digest: str, cohort: Cohort) -> None:
    """Freeze a study's cohort. Only the order that counts it does, before the study is approved."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = None if cohort.values is None else _npy_of(cohort.values)
    if rows is not None:  # first: the cohort itself says that all is there
        write_durably(_place_of_values(folder, study_digest), rows, mode=0o600)
    rows_digest = {} if rows is None else {"rows_digest": digest_of_bytes(rows)}
    write_durably(_place(folder, study_digest), canonical_json(_document(cohort) | rows_digest), mode=0o600)


def frozen_cohort(folder: Path, study_digest: str) -> Cohort:
    """Return the study's cohort as it was frozen.

    Raises: CohortError if it is missing or damaged: the ledger was charged for those patients and no others.
    """
    path = _place(folder, study_digest)
    if not path.exists():
        raise CohortError(
            "The frozen cohort of a study is missing.", "Stop the study at the hub; a new study freezes a new cohort."
        )
    return _read(path, _place_of_values(folder, study_digest))


def approved_cohort(folder: Path, study_digest: str, approved: str | None, split_key: bytes) -> Cohort:
    """Return the study's frozen cohort if, by its content, it is the one with the digest that was `approved`.

    None: an older gate's order does not say which; the content must still be what the file says that it is.

    Raises: CohortError if it is another one, missing or damaged.
    """
    cohort = frozen_cohort(folder, study_digest)
    found = manifest_digest_of(cohort.patients, split_key)
    if found != cohort.manifest_digest or (approved is not None and found != approved):
        raise CohortError(
            "The frozen cohort of a study is not the one that was approved and charged.",
            "Stop the study at the hub; a new study freezes a new cohort.",
        )
    return cohort


def _place(folder: Path, study_digest: str) -> Path:
    return folder / f"{hex_of(study_digest)}{COHORT_SUFFIX}"


def _place_of_values(folder: Path, study_digest: str) -> Path:
    return folder / f"{hex_of(study_digest)}{VALUES_SUFFIX}"


def _npy_of(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _document(cohort: Cohort) -> dict[str, Any]:
    patients = [asdict(patient) for patient in cohort.patients]
    for patient in patients:
        patient["images"] = [_image_written(image) for image in patient["images"]]
    rows = None if cohort.values is None else len(cohort.values)
    return {
        **{"manifest_digest": cohort.manifest_digest, "dropped": dict(cohort.dropped), "patients": patients},
        **{"rows_of_table": rows, "left_out": dict(cohort.left_out), "told": cohort.told},
        "mask_names": dict(cohort.mask_names),
    }


def _read(path: Path, path_of_values: Path) -> Cohort:
    try:
        document = parse_json(path.read_bytes())
        patients = tuple(_patient(entry) for entry in document["patients"])
        values = None
        if document.get("rows_of_table") is not None:
            values = np.load(path_of_values, mmap_mode="r", allow_pickle=False)
            frozen = document.get("rows_digest")  # None: frozen by an older release
            is_other = frozen is not None and digest_of_bytes(path_of_values.read_bytes()) != frozen
            if len(values) != document["rows_of_table"] or is_other:
                raise ValueError("other rows than were frozen")
        left_out = document.get("left_out", {})
        told = document.get("told")
        names = document.get("mask_names", {})
        digest, dropped = document["manifest_digest"], document["dropped"]
        return Cohort(patients, digest, dropped, left_out, values, told=told, mask_names=names)
    except (DigestError, FileNotFoundError, KeyError, TypeError, ValueError):
        raise CohortError(
            "The frozen cohort of a study is damaged.", "Stop the study at the hub; a new study freezes a new cohort."
        ) from None


def _patient(entry: dict[str, Any]) -> Patient:
    images = tuple(_image(image) for image in entry["images"])
    return Patient(**{**entry, "images": images, "findings": tuple(entry.get("findings", ()))})


def _image_written(image: dict[str, Any]) -> dict[str, Any]:
    written = {**image, "path": _written(image["path"])}
    slices = written.pop("slices")
    mask = written.pop("mask")
    if mask is not None:
        written["mask"] = {**mask, "path": _written(mask["path"])}
        beside = written["mask"].pop("beside")
        written["mask"] |= {"beside": [_written(path) for path in beside]} if beside else {}
    return written | ({"slices": [_written(path) for path in slices]} if slices else {})


def _image(entry: dict[str, Any]) -> ImageRef:
    slices, drawn = tuple(_path(path) for path in entry.get("slices", ())), entry.get("mask")
    mask = _mask(drawn) if drawn else None
    findings = tuple(entry.get("findings", ()))
    return ImageRef(**{**entry, "path": _path(entry["path"]), "slices": slices, "findings": findings, "mask": mask})


def _mask(entry: dict[str, Any]) -> MaskRef:
    beside = tuple(_path(path) for path in entry.get("beside", ()))
    return MaskRef(**{**entry, "path": _path(entry["path"]), "beside": beside})


def _written(path: Path) -> str | dict[str, str]:
    name = stored(str(path))
    return name if isinstance(name, str) else {"bytes": name.hex()}  # a name that is not UTF-8 is no JSON text


def _path(written: str | dict[str, str]) -> Path:
    return Path(written if isinstance(written, str) else os.fsdecode(bytes.fromhex(written["bytes"])))
