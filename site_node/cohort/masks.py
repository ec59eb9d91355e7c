"""The masks of a segmentation study's images: masks.csv beside labels.csv, and each mask read once, to the voxel.

masks.csv names the files: `file` (from its own folder), and in `sop_instance_uid` or `series_instance_uid` the image or
series that it was drawn on. A file is NIfTI, a picture (PNG, TIFF, BMP), or DICOM SEG or RTSTRUCT.
A mask that cannot be read, or does not fit its image, drops the image, with the reason, before training; what was read
is part of the cohort's manifest by its digest, and is compared with when it is read again. Files of bare numbers are
looked at together before one of them may go without names (`labels/voxel_values.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from numpy.typing import NDArray

from protocol.digest import digest_of, digest_of_bytes
from site_node.cohort.csv_file import read_records
from site_node.cohort.mask_files import FILE_COLUMN, IF_UNREADABLE, MASKS
from site_node.dicom.annotations import SEGMENTATION_CLASSES, STRUCTURE_SET_CLASS
from site_node.dicom.quiet import quiet
from site_node.errors import LabelsError, MaskError, UnknownValueError, UnreadableError
from site_node.labels.masks import (
    KINDS_OF_VALUES,
    Kind,
    MaskRef,
    check_is_there,
    geometry_of_picture,
    geometry_of_volume,
    read_mask,
)
from site_node.labels.naming import BACKGROUND
from site_node.labels.voxel_values import only_value_named

if TYPE_CHECKING:
    from site_node.cohort.matching import Match

INSTANCE_COLUMN, SERIES_COLUMN = "sop_instance_uid", "series_instance_uid"

NO_MASK = "image: it has no mask: no row in masks.csv, and no segmentation or structure set that names it"
SEVERAL_MASKS = "image: it has several masks, and masks.csv does not say which one counts"
UNUSABLE = "image: its mask cannot be used: "
NO_IMAGE_NAMED = "mask: the row names no file, or neither an image nor a series"
NOT_A_MASK = "the mask's file is neither a picture, NIfTI, DICOM SEG nor RTSTRUCT"

SUFFIXES: Mapping[str, Kind] = {
    **dict.fromkeys((".nii", ".gz"), "nifti"),
    **dict.fromkeys((".png", ".bmp", ".tif", ".tiff"), "image"),
}
DICOM_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(SEGMENTATION_CLASSES, "seg"),
    STRUCTURE_SET_CLASS: "rtstruct",
}


@dataclass(frozen=True)
class ReadMask:
    """A mask that was read and fits its image; the digest is over its shape and its class numbers, not its file.

    `marks` are the classes in it beside the background, of a file of bare numbers alone.
    """

    ref: MaskRef
    digest: str
    marks: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Masked:
    """The matches that have a mask, with it, and the names that the masks were read with.

    `remedies` say what to do about those that cannot be used, by the reason that they are counted under.
    """

    matches: list["Match"]
    names: Mapping[str, int]
    remedies: Mapping[str, str]


Outcome = ReadMask | UnreadableError | str
"""A mask, why it cannot be used, or why there is none."""


@dataclass(frozen=True)
class MaskList:
    """What masks.csv names: files by the UID of an image or a series, and whose rows contradict each other."""

    files: Mapping[str, MaskRef]
    contradicting: frozenset[str]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def under(self, stated: "MaskList") -> "MaskList":
        """Return these masks and those that `stated` names, which go first."""
        contradicting = stated.contradicting | (self.contradicting - stated.files.keys())
        return MaskList({**self.files, **stated.files}, contradicting, stated.dropped)


def with_masks(
    matches: Iterable["Match"],
    labels_path: Path,
    numbers: Mapping[str, int],
    dropped: Counter[str],
    indexed: MaskList | None = None,
) -> Masked:
    """Give the matches their masks; each that has none is counted in `dropped` by its reason.

    `numbers` are the classes' numbers by the names that masks use (`labels/naming.py`). `indexed` are the masks that
    name their images themselves (`indexed_masks.py`); where there are some, masks.csv need not be.

    Raises: LabelsError if masks.csv is missing, is no such table, or lacks a column.
    """
    path = labels_path.with_name(MASKS)
    masks = indexed if indexed and indexed.files and not path.exists() else read_mask_list(path)
    if indexed and masks is not indexed:
        masks = indexed.under(masks)
    dropped.update(masks.dropped)
    every, found, remedies = list(matches), list["Match"](), dict[str, str]()
    outcomes, names = _read_together(every, masks, numbers)
    for match, outcome in zip(every, outcomes, strict=True):
        if isinstance(outcome, ReadMask):
            found.append(replace(match, mask=outcome))
            continue
        reason = outcome if isinstance(outcome, str) else UNUSABLE + outcome.message
        dropped[reason] += 1
        if isinstance(outcome, UnreadableError):
            remedies.setdefault(reason, outcome.remedy)
    return Masked(found, names, remedies)


def read_mask_list(path: Path) -> MaskList:
    """Read masks.csv.

    Raises: LabelsError if it is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    files: dict[str, MaskRef] = {}
    contradicting: set[str] = set()
    dropped: Counter[str] = Counter()
    named = False
    for record in read_records(path, (FILE_COLUMN,), IF_UNREADABLE):
        named = named or INSTANCE_COLUMN in record or SERIES_COLUMN in record
        instance, series = record.get(INSTANCE_COLUMN) or None, record.get(SERIES_COLUMN) or None
        uid = instance or series
        if not record[FILE_COLUMN] or uid is None:
            dropped[NO_IMAGE_NAMED] += 1
            continue
        file = path.parent / record[FILE_COLUMN]
        mask = MaskRef(file, _kind_by_name(file), series, instance)
        if files.setdefault(uid, mask).path != mask.path:
            contradicting.add(uid)
    if not named and (files or dropped):
        raise LabelsError(f"{path.name} lacks a column that names images.", IF_UNREADABLE)
    return MaskList(files, frozenset(contradicting), dict(dropped))


def mask_values(
    mask: MaskRef, path: Path, frame: int | None, slices: tuple[Path, ...], numbers: Mapping[str, int]
) -> NDArray[np.uint8]:
    """Read the mask of a picture, or of a volume whose files are `slices`, as class numbers on its own voxels.

    Shapes: result as the picture or volume.
    Raises: MaskError or SeriesError if it cannot be read, or does not fit.
    """
    geometry = geometry_of_volume(slices) if slices else geometry_of_picture(path, frame)
    return read_mask(mask, geometry, numbers)


def digest_of_mask(values: NDArray[np.uint8]) -> str:
    """Return the digest of a mask's shape and class numbers."""
    return digest_of([list(values.shape), digest_of_bytes(np.ascontiguousarray(values).tobytes())])


def _read_together(
    matches: Iterable["Match"], masks: MaskList, numbers: Mapping[str, int]
) -> tuple[list[Outcome], Mapping[str, int]]:
    """Read each match's mask, those with an unknown value again if it is the only one in all of them.

    Where the marks of no file are known, its empty ones are refused with them: a cohort of these alone would teach that
    there is nothing to find.
    """
    outcomes = [(match, _mask_of(match, masks, numbers)) for match in matches]
    marked = [outcome.marks for _, outcome in outcomes if isinstance(outcome, (ReadMask, UnknownValueError))]
    if not any(isinstance(outcome, UnknownValueError) for _, outcome in outcomes):
        return [outcome for _, outcome in outcomes], numbers
    names = only_value_named(numbers, frozenset().union(*marked))
    again = [
        _mask_of(match, masks, names) if isinstance(outcome, UnknownValueError) else outcome
        for match, outcome in outcomes
    ]
    refused = next((outcome for outcome in again if isinstance(outcome, UnknownValueError)), None)
    if refused is None or any(isinstance(outcome, ReadMask) and outcome.marks for outcome in again):
        return again, names
    return [refused if _is_of_values(outcome) else outcome for outcome in again], names


def _is_of_values(outcome: Outcome) -> bool:
    return isinstance(outcome, ReadMask) and outcome.ref.kind in KINDS_OF_VALUES


def _mask_of(match: "Match", masks: MaskList, numbers: Mapping[str, int]) -> Outcome:
    header = match.image.header
    uids = [match.row.sop_instance_uid, header.sop_instance_uid, header.series_instance_uid]
    uid = next((one for one in uids if one in masks.files), None)
    if uid is None:
        return NO_MASK
    if uid in masks.contradicting:
        return SEVERAL_MASKS
    try:
        mask = _with_its_kind(masks.files[uid])
        values = mask_values(mask, match.image.path, None, match.slices, numbers)
    except UnreadableError as error:
        return error.with_traceback(None)  # which would keep the mask's voxels
    marks = frozenset(np.unique(values).tolist()) - {BACKGROUND} if mask.kind in KINDS_OF_VALUES else frozenset()
    return ReadMask(mask, digest_of_mask(values), marks)


def _with_its_kind(mask: MaskRef) -> MaskRef:
    return mask if mask.path.suffix.casefold() in SUFFIXES else replace(mask, kind=_kind_of_dicom(mask.path))


def _kind_by_name(path: Path) -> Kind:
    return SUFFIXES.get(path.suffix.casefold(), "seg")  # of DICOM the header says which, once it is read


def _kind_of_dicom(path: Path) -> Kind:
    check_is_there(path)
    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
            kind = DICOM_KINDS.get(str(header.get("SOPClassUID") or ""))
    except Exception:  # pydicom raises whatever a damaged file leads it to
        kind = None
    if kind is None:
        raise MaskError(NOT_A_MASK, "Name the mask's own file in masks.csv.")
    return kind
