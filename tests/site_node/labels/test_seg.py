"""DICOM Segmentations, written by highdicom, come back voxel by voxel or are refused with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.errors import MaskError
from site_node.labels import mask_geometry, seg, structures
from site_node.labels.masks import MaskRef, PictureGeometry, geometry_of_picture, geometry_of_volume, read_mask
from site_node.labels.naming import class_numbers
from tests.fakes.annotations import KIDNEY, segmentation
from tests.fakes.dicom import make_dataset, save, uid_of
from tests.fakes.series import CORONAL, SAGITTAL, body, positions_of, saved, series_of

CLASSES = class_numbers(["background", "organ", "tumour"], {"left one": "organ", "SCT:108369006": "Tumour"})


def made_series(folder: Path, **more: Any) -> tuple[list[Dataset], PictureGeometry]:
    slices = series_of(body(), positions_of(4, orientation=more.get("orientation", (1, 0, 0, 0, 1, 0))), **more)
    return slices, geometry_of_volume(saved(slices, folder / "images"))


def marks() -> NDArray[np.uint8]:
    """Return marks with an empty first slice, so that the writer leaves frames out."""
    drawn = np.random.default_rng(2).integers(0, 3, (4, 6, 5), np.uint8)
    drawn[0] = 0
    return drawn


def read(dataset: Dataset, folder: Path, geometry: PictureGeometry) -> NDArray[np.uint8]:
    return read_mask(MaskRef(save(dataset, folder / "seg.dcm"), "seg"), geometry, CLASSES)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), SAGITTAL, CORONAL])
def test_a_segmentation_of_a_series_lies_on_its_volume(
    tmp_path: Path, kind: str, orientation: tuple[float, ...]
) -> None:
    slices, geometry = made_series(tmp_path, orientation=orientation)
    assert geometry.sop_instance_uids == tuple(str(one.SOPInstanceUID) for one in slices)
    np.testing.assert_array_equal(read(segmentation(slices, marks(), kind), tmp_path, geometry), marks())


def test_the_slices_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    turned = segmentation(slices[::-1], marks()[::-1])
    np.testing.assert_array_equal(read(turned, tmp_path, geometry), marks())


def test_of_a_fraction_belongs_what_has_half_of_the_most(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    fractions = np.zeros((4, 6, 5, 1))
    fractions[1, 0, :4, 0] = 0.2, 0.4, 0.5, 0.9
    made = segmentation(slices, fractions, "FRACTIONAL", segments=[("left one", KIDNEY)], max_fractional_value=100)
    assert np.argwhere(read(made, tmp_path, geometry)).tolist() == [[1, 0, 2], [1, 0, 3]]


def test_where_classes_overlap_the_later_lies_on_top(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    both = np.zeros((4, 6, 5, 2), np.uint8)
    both[1, :, :, 0] = 1
    both[1, 2, 2, 1] = 1
    result = read(segmentation(slices, both), tmp_path, geometry)
    assert (int((result == 1).sum()), int((result == 2).sum()), int(result[1, 2, 2])) == (29, 1, 2)


def test_one_slice_gets_its_own_frame_and_one_without_a_frame_is_empty(tmp_path: Path) -> None:
    slices, _ = made_series(tmp_path)
    path = save(segmentation(slices, marks()), tmp_path / "seg.dcm")
    for number, one in enumerate(slices):
        geometry = geometry_of_picture(save(one, tmp_path / "one.dcm"))
        np.testing.assert_array_equal(read_mask(MaskRef(path, "seg"), geometry, CLASSES), marks()[number])


def test_a_radiographs_segmentation_fits_by_its_reference(tmp_path: Path) -> None:
    image = make_dataset(np.zeros((6, 5), np.uint8), PatientOrientation=["L", "F"])
    geometry = geometry_of_picture(save(image, tmp_path / "one.dcm"))
    made = segmentation([image], marks()[1:2])
    np.testing.assert_array_equal(read(made, tmp_path, geometry), marks()[1])
    other = geometry_of_picture(save(make_dataset(np.zeros((6, 5), np.uint8), "P2"), tmp_path / "other.dcm"))
    with pytest.raises(MaskError, match=mask_geometry.OTHER_SERIES):
        read(made, tmp_path, other)


def test_a_segment_is_known_by_its_label_its_code_or_its_meaning(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    path = save(segmentation(slices, marks()), tmp_path / "seg.dcm")
    for names in ({"LESION  1": "tumour"}, {"sct:108369006": "tumour"}, {"neoplasm": "tumour"}):
        result = read_mask(MaskRef(path, "seg"), geometry, class_numbers(["background", "tumour"], names))
        np.testing.assert_array_equal(result, marks() == 2)


def test_a_file_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    path = save(segmentation(slices, marks()), tmp_path / "seg.dcm")
    with pytest.raises(MaskError, match=structures.NONE_NAMED) as caught:
        read_mask(MaskRef(path, "seg"), geometry, {"background": 0, "spleen": 1})
    assert "lesion" not in str(caught.value).casefold()
    reviewed = class_numbers(["background", "spleen"], {"left one": ""})
    assert not read_mask(MaskRef(path, "seg"), geometry, reviewed).any()


def test_a_segment_named_as_something_else_is_never_the_studys_class(tmp_path: Path) -> None:
    """What the hospital calls an oedema is left out, and refused if another of its names is the study's."""
    slices, geometry = made_series(tmp_path)
    path = save(segmentation(slices, marks()), tmp_path / "seg.dcm")
    left_out = class_numbers(["background", "tumour"], {"left one": "tumour", "lesion 1": "oedema"})
    np.testing.assert_array_equal(read_mask(MaskRef(path, "seg"), geometry, left_out), marks() == 1)
    two = class_numbers(["background", "tumour"], {"lesion 1": "oedema", "neoplasm": "tumour"})
    with pytest.raises(MaskError, match=structures.TWO_MEANINGS):
        read_mask(MaskRef(path, "seg"), geometry, two)
    alone = class_numbers(["background", "tumour"], {"lesion 1": "tumor"})
    with pytest.raises(MaskError, match=structures.NONE_NAMED):
        read_mask(MaskRef(path, "seg"), geometry, alone)


def test_a_segmentation_of_another_series_is_refused(tmp_path: Path) -> None:
    slices, _ = made_series(tmp_path)
    other = saved(series_of(body(), positions_of(4), patient_id="P2"), tmp_path / "other")
    with pytest.raises(MaskError, match=mask_geometry.OTHER_PLACES):
        read(segmentation(slices, marks()), tmp_path, geometry_of_volume(other))


def test_a_segmentation_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    slices, _ = made_series(tmp_path)
    made = segmentation(slices, marks())
    for number, step in ((1, 1.25), (2, 50.0)):
        moved = [tuple(np.add(place, (0, 0, step))) for place in positions_of(4)]
        geometry = geometry_of_volume(saved(series_of(body(), moved), tmp_path / f"moved{number}"))
        reason = mask_geometry.BETWEEN if step < 2 else mask_geometry.OUTSIDE
        with pytest.raises(MaskError, match=reason):
            read(made, tmp_path, geometry)


def test_a_segmentation_said_to_be_moved_is_not_laid_by_reference(tmp_path: Path) -> None:
    image = make_dataset(np.zeros((6, 5), np.uint8), PatientOrientation=["L", "F"])
    geometry = geometry_of_picture(save(image, tmp_path / "one.dcm"))
    made = segmentation([image], marks()[1:2])
    for group in made.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "NO"
    with pytest.raises(MaskError, match=seg.MOVED):
        read(made, tmp_path, geometry)


@pytest.mark.parametrize("missing", ["SegmentSequence", "PerFrameFunctionalGroupsSequence", "PixelData", "SOPClassUID"])
def test_a_damaged_segmentation_is_refused_and_quotes_nothing(tmp_path: Path, missing: str) -> None:
    slices, geometry = made_series(tmp_path)
    made = segmentation(slices, marks())
    delattr(made, missing)
    with pytest.raises(MaskError) as caught:
        read(made, tmp_path, geometry)
    assert not any(word in str(caught.value) for word in (str(uid_of("P1")), str(made.SOPInstanceUID), "lesion"))
