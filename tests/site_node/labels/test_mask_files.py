"""Masks as picture files and as NIfTI: read to the voxel, or refused with a reason."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from site_node.errors import LabelsError, MaskError, UnknownValueError
from site_node.labels import image_file, masks, nifti, voxel_values
from site_node.labels.masks import Kind, MaskRef, PictureGeometry, read_mask
from site_node.labels.naming import class_numbers
from site_node.labels.voxel_values import only_value_named

TUMOUR = {"background": 0, "tumour": 1}
HIPPOCAMPUS = {"background": 0, "anterior": 1, "posterior": 2}
NAMED = TUMOUR | {"255": 1}
FLAT = PictureGeometry((2, 3))
WIDE = PictureGeometry((3, 4))
VOLUME = PictureGeometry((2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
DRAWN = np.array([[0, 255, 0], [0, 0, 255]], np.uint8)


def png(folder: Path, values: NDArray[np.uint8], mode: str | None = None) -> MaskRef:
    picture = Image.fromarray(values)
    (picture if mode is None else picture.convert(mode)).save(folder / "mask.png")
    return MaskRef(folder / "mask.png", "image")


def volume_file(folder: Path, values: NDArray[np.float64] | NDArray[np.uint8], *, placed: bool = True) -> MaskRef:
    """Write a mask (slice, row, column) as NIfTI has it: columns first."""
    affine = VOLUME.placed()[:, [2, 1, 0, 3]] if placed else None
    image = nibabel.Nifti1Image(np.transpose(values, (2, 1, 0)), affine)
    nibabel.save(image, folder / "mask.nii.gz")
    return MaskRef(folder / "mask.nii.gz", "nifti")


def test_a_picture_of_a_value_that_was_named_is_that_class(tmp_path: Path) -> None:
    result = read_mask(png(tmp_path, DRAWN), FLAT, TUMOUR | {"255": 1})
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, [[0, 1, 0], [0, 0, 1]])


def test_one_file_alone_does_not_say_what_its_other_value_means(tmp_path: Path) -> None:
    with pytest.raises(UnknownValueError, match=voxel_values.UNKNOWN_VALUE) as caught:
        read_mask(png(tmp_path, DRAWN), FLAT, TUMOUR)
    assert caught.value.marks == {255}


@pytest.mark.parametrize(
    ("names", "value"),
    [
        ({"2": "oedema", "1": "tumour"}, 2),
        ({"255": "oedema"}, 255),
        ({"1": "oedema"}, 1),
        ({"255": "tumor"}, 255),
        ({"0": "oedema"}, 0),
    ],
)
@pytest.mark.parametrize("kind", ["image", "nifti"])
def test_a_value_named_as_something_else_is_never_the_studys_class(
    tmp_path: Path, kind: Kind, names: dict[str, str], value: int
) -> None:
    """The hospital says that the value is oedema; the study learns tumours alone."""
    numbers = class_numbers(list(TUMOUR), names)
    drawn = np.array([[[0, value, 0, 0]] * 3] * 2, np.uint8)
    mask, geometry = (volume_file(tmp_path, drawn), VOLUME) if kind == "nifti" else (png(tmp_path, drawn[0]), WIDE)
    with pytest.raises(MaskError, match=voxel_values.UNKNOWN_VALUE):
        read_mask(mask, geometry, only_value_named(numbers, {value}))


def test_a_voxel_of_minus_one_is_no_class(tmp_path: Path) -> None:
    numbers = class_numbers(list(TUMOUR), {"7": "oedema"})
    with pytest.raises(MaskError, match=voxel_values.UNKNOWN_VALUE):
        read_mask(volume_file(tmp_path, np.full((2, 3, 4), -1.0)), VOLUME, numbers)


def test_the_only_value_of_all_masks_is_the_only_class_there_is() -> None:
    assert only_value_named(TUMOUR, {255}) == TUMOUR | {"255": 1}
    assert only_value_named(TUMOUR, {2, 4}) == TUMOUR
    assert only_value_named(HIPPOCAMPUS, {255}) == HIPPOCAMPUS


def test_an_empty_picture_is_background(tmp_path: Path) -> None:
    assert not read_mask(png(tmp_path, np.zeros((2, 3), np.uint8)), FLAT, HIPPOCAMPUS).any()


def test_grey_saved_in_colours_is_grey_and_a_palette_counts_by_its_numbers(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(png(tmp_path, DRAWN, "RGB"), FLAT, NAMED), DRAWN // 255)
    palette = Image.fromarray(DRAWN // 255, "L").convert("P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(MaskRef(tmp_path / "mask.png", "image"), FLAT, TUMOUR), DRAWN // 255)


def test_a_value_is_named_by_the_site_or_is_a_classs_number(tmp_path: Path) -> None:
    numbers = class_numbers(list(HIPPOCAMPUS), {"255": "Posterior "})
    np.testing.assert_array_equal(read_mask(png(tmp_path, DRAWN), FLAT, numbers), DRAWN // 255 * 2)
    np.testing.assert_array_equal(read_mask(png(tmp_path, DRAWN // 255), FLAT, HIPPOCAMPUS), DRAWN // 255)


def test_a_value_that_stands_for_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=voxel_values.UNKNOWN_VALUE):
        read_mask(png(tmp_path, DRAWN), FLAT, HIPPOCAMPUS)


def test_the_same_name_cannot_mean_two_classes() -> None:
    with pytest.raises(LabelsError, match="two meanings"):
        class_numbers(list(HIPPOCAMPUS), {"front": "anterior", "Front": "posterior"})


@pytest.mark.parametrize(
    ("values", "geometry", "reason"),
    [
        (np.zeros((3, 2), np.uint8), FLAT, image_file.OTHER_SIZE),
        (np.zeros((2, 3), np.uint8), VOLUME, image_file.VOLUME),
        (np.arange(18, dtype=np.uint8).reshape(2, 3, 3), FLAT, image_file.IN_COLOUR),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(
    tmp_path: Path, values: NDArray[np.uint8], geometry: PictureGeometry, reason: str
) -> None:
    with pytest.raises(MaskError, match=reason):
        read_mask(png(tmp_path, values), geometry, TUMOUR)


@pytest.mark.parametrize(("kind", "geometry"), [("image", FLAT), ("nifti", VOLUME)])
def test_a_damaged_or_missing_file_is_refused_without_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Kind, geometry: PictureGeometry
) -> None:
    (tmp_path / "secret.png").write_bytes(b"no picture")
    (tmp_path / "secret.nii").write_bytes((348).to_bytes(4, "little") + b"secret" * 100)
    (tmp_path / "secret.nii.gz").write_bytes(b"no gzip")
    for name in ("secret.png", "gone.nii", "secret.nii", "secret.nii.gz"):
        with pytest.raises(MaskError) as caught:
            read_mask(MaskRef(tmp_path / name, kind), geometry, TUMOUR)
        assert "secret" not in str(caught.value)
        assert caught.value.remedy
    assert caplog.records == []


def test_a_nifti_file_is_read_onto_slices_rows_and_columns(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 3, (2, 3, 4), np.uint8)
    np.testing.assert_array_equal(read_mask(volume_file(tmp_path, drawn), VOLUME, HIPPOCAMPUS), drawn)


def test_both_versions_of_nifti_are_read_and_other_formats_are_not(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 3, (2, 3, 4), np.uint8)
    affine = VOLUME.placed()[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti2Image(drawn.transpose(2, 1, 0), affine), tmp_path / "mask.nii")
    np.testing.assert_array_equal(read_mask(MaskRef(tmp_path / "mask.nii", "nifti"), VOLUME, HIPPOCAMPUS), drawn)
    nibabel.save(nibabel.MGHImage(drawn.transpose(2, 1, 0), affine.astype(np.float32)), tmp_path / "mask.mgz")
    with pytest.raises(MaskError, match=nifti.UNREADABLE):
        read_mask(MaskRef(tmp_path / "mask.mgz", "nifti"), VOLUME, HIPPOCAMPUS)


def test_a_picture_in_a_format_that_starts_other_programs_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 2\n%%EndComments\n")
    with pytest.raises(MaskError, match=image_file.UNREADABLE):
        read_mask(MaskRef(tmp_path / "mask.png", "image"), FLAT, TUMOUR)


def test_a_nifti_file_without_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="form codes"):
        read_mask(volume_file(tmp_path, np.zeros((2, 3, 4), np.uint8), placed=False), VOLUME, TUMOUR)


def test_probabilities_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=voxel_values.NOT_WHOLE):
        read_mask(volume_file(tmp_path, np.full((2, 3, 4), 0.3)), VOLUME, TUMOUR)


def test_several_volumes_in_one_file_are_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2, 2), np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "mask.nii")
    with pytest.raises(MaskError, match=nifti.SEVERAL_VOLUMES):
        read_mask(MaskRef(tmp_path / "mask.nii", "nifti"), VOLUME, TUMOUR)


@pytest.mark.parametrize("kind", ["image", "nifti", "seg", "rtstruct"])
def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(MaskError, match=masks.MISSING):
        read_mask(MaskRef(tmp_path / "gone", kind), VOLUME, TUMOUR)
