"""The masks of a segmentation study's images: masks.csv beside labels.csv, and each mask read once, to the voxel.

masks.csv names the files: `file` (from its own folder), and in `sop_instance_uid` or `series_instance_uid` the image or
series that it was drawn on. A file is NIfTI, a picture (PNG, TIFF, BMP), or DICOM SEG or RTSTRUCT.
A mask that cannot be read, or does not fit its image, drops the image, with the reason, before training; what was read
is part of the cohort's manifest by its digest, and is compared with when it is read again.
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
from site_node.dicom.quiet import quiet
from site_node.errors import LabelsError, MaskError, UnreadableError
from site_node.labels.masks import Kind, MaskRef, geometry_of_picture, geometry_of_volume, read_mask

if TYPE_CHECKING:
    from site_node.cohort.matching import Match

MASKS = "masks.csv"
FILE_COLUMN, INSTANCE_COLUMN, SERIES_COLUMN = "file", "sop_instance_uid", "series_instance_uid"
IF_UNREADABLE = "Put a masks.csv beside labels.csv: file, and sop_instance_uid or series_instance_uid."

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
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "seg",
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",
}


@dataclass(frozen=True)
class ReadMask:
    """A mask that was read and fits its image; the digest is over its shape and its class numbers, not its file."""

    ref: MaskRef
    digest: str


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
) -> list["Match"]:
    """Return the matches that have a mask, with it; each other is counted in `dropped` by its reason.

    `numbers` are the classes' numbers by the names that masks use (`labels/naming.py`). `indexed` are the masks that
    name their images themselves (`indexed_masks.py`); where there are some, masks.csv need not be.

    Raises: LabelsError if masks.csv is missing, is no such table, or lacks a column.
    """
    path = labels_path.with_name(MASKS)
    masks = indexed if indexed and indexed.files and not path.exists() else read_mask_list(path)
    if indexed and masks is not indexed:
        masks = indexed.under(masks)
    dropped.update(masks.dropped)
    found = []
    for match in matches:
        outcome = _mask_of(match, masks, numbers)
        if isinstance(outcome, ReadMask):
            found.append(replace(match, mask=outcome))
        else:
            dropped[outcome] += 1
    return found


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


def _mask_of(match: "Match", masks: MaskList, numbers: Mapping[str, int]) -> ReadMask | str:
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
        return UNUSABLE + error.message
    return ReadMask(mask, digest_of_mask(values))


def _with_its_kind(mask: MaskRef) -> MaskRef:
    return mask if mask.path.suffix.casefold() in SUFFIXES else replace(mask, kind=_kind_of_dicom(mask.path))


def _kind_by_name(path: Path) -> Kind:
    return SUFFIXES.get(path.suffix.casefold(), "seg")  # of DICOM the header says which, once it is read


def _kind_of_dicom(path: Path) -> Kind:
    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
            kind = DICOM_KINDS.get(str(header.get("SOPClassUID") or ""))
    except Exception:  # pydicom raises whatever a damaged file leads it to
        kind = None
    if kind is None:
        raise MaskError(NOT_A_MASK, "Name the mask's own file in masks.csv.")
    return kind
