"""Masks of real files: as other readers see them, or refused with a reason."""

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from site_node.dicom.annotations import read_annotation
from site_node.dicom.quiet import quiet
from site_node.errors import MaskError
from site_node.labels.masks import Kind, MaskRef, PictureGeometry, geometry_of_picture, read_mask
from site_node.labels.structured_report import read_report

SHARED = Path(__file__).parents[4] / "shared" / "data"
ODD = SHARED / "odd_dicom"
SEG = ODD / "ImagingDataCommons__highdicom"

pytestmark = [pytest.mark.shared, pytest.mark.skipif(not ODD.is_dir(), reason="the development data are not here")]


def every_segment(path: Path) -> dict[str, int]:
    with quiet():
        segments = pydicom.dcmread(path, stop_before_pixels=True).SegmentSequence
    return {str(segment.SegmentLabel): number for number, segment in enumerate(segments, start=1)}


@pytest.mark.parametrize("name", ["binary", "binary_fractional", "true_fractional", "binary_single_frame"])
def test_a_segmentation_of_a_ct_has_the_pixels_that_highdicom_reads(name: str) -> None:
    """The series of four slices of which these were made: only one of them is there, so its place is written here."""
    path = SEG / f"seg_image_ct_{name}.dcm"
    header = read_annotation(path)
    assert header is not None
    with quiet():
        reader = highdicom.seg.segread(path)
        spacing = [
            float(value) for value in reader.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        ]
        groups = reader.PerFrameFunctionalGroupsSequence
        first = [float(v) for v in groups[0].PlanePositionSequence[0].ImagePositionPatient]
        source = [*header.instances]
        frames = reader.get_pixels_by_source_instance(
            source, combine_segments=False, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
    named = {
        str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID): float(
            group.PlanePositionSequence[0].ImagePositionPatient[2]
        )
        for group in groups
    }
    lowest = min(named.values()) - (1.25 if len(named) < len(source) else 0)
    affine = np.array(
        [[0, 0, -spacing[1], -first[0]], [0, -spacing[0], 0, -first[1]], [1.25, 0, 0, lowest], [0, 0, 0, 1.0]]
    )
    order = sorted(source, key=lambda uid: named.get(uid, lowest))
    geometry = PictureGeometry(
        (len(source), int(reader.Rows), int(reader.Columns)), affine, tuple(order), series_instance_uid=header.series[0]
    )
    expected = np.zeros(geometry.shape, np.uint8)
    for segment in range(frames.shape[-1]):
        inside = frames[[source.index(uid) for uid in order], :, :, segment] >= 0.5
        expected[inside] = segment + 1
    result = read_mask(MaskRef(path, "seg"), geometry, every_segment(path))
    np.testing.assert_array_equal(result, expected)
    assert result.any() == expected.any()


def test_segments_that_overlap_lie_on_each_other_slice_by_slice() -> None:
    path = SEG / "seg_image_ct_binary_overlap.dcm"
    with quiet():
        dataset = pydicom.dcmread(path)
        frames = dataset.pixel_array
    names = every_segment(path)
    count = len(dataset.PerFrameFunctionalGroupsSequence) // len(names)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence[:count]):
        x, y, z = (float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient)
        affine = np.array([[0, 0, -0.488281, -x], [0, -0.488281, 0, -y], [1, 0, 0, z], [0, 0, 0, 1.0]])
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        result = read_mask(MaskRef(path, "seg"), PictureGeometry((16, 16), affine, (uid,)), names)
        np.testing.assert_array_equal(result, np.maximum(frames[number], 2 * frames[number + count]))


def test_the_segmentation_of_a_radiograph_fits_by_its_reference() -> None:
    path = SEG / "seg_image_cr_binary.dcm"
    header = read_annotation(path)
    assert header is not None
    geometry = PictureGeometry((16, 16), None, header.instances, series_instance_uid=header.series[0])
    with quiet():
        expected = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read_mask(MaskRef(path, "seg"), geometry, every_segment(path)), expected)


def refusal(mask: MaskRef, geometry: PictureGeometry) -> MaskError | None:
    try:
        read_mask(mask, geometry, {"background": 0, "bone": 1})
    except MaskError as error:
        return error
    return None


@pytest.mark.parametrize("path", sorted(ODD.rglob("*")) if ODD.is_dir() else [], ids=lambda path: path.name[:60])
def test_no_odd_file_is_read_as_a_mask_or_report_but_with_our_own_error(path: Path) -> None:
    if not path.is_file() or path.stat().st_size > 3_000_000:
        pytest.skip("no file, or a large one")
    read_annotation(path)
    read_report(path)
    geometry = PictureGeometry((2, 16, 16), np.diag([3.0, 1.0, 1.0, 1.0]))
    kinds: tuple[Kind, ...] = ("seg", "rtstruct", "nifti", "image")
    for kind in kinds:
        error = refusal(MaskRef(path, kind), geometry)
        assert error is None or (error.remedy and path.name not in str(error))


def test_the_labels_of_the_hippocampus_lie_on_its_volumes_voxel_by_voxel() -> None:
    for label in sorted((SHARED / "msd_hippocampus" / "labels").glob("*.nii.gz"))[:5]:
        picture = nibabel.load(SHARED / "msd_hippocampus" / "images" / label.name)
        drawn = np.asarray(nibabel.load(label).dataobj)
        affine = picture.affine[:, [2, 1, 0, 3]]
        geometry = PictureGeometry(drawn.shape[::-1], affine)
        result = read_mask(MaskRef(label, "nifti"), geometry, {"background": 0, "anterior": 1, "posterior": 2})
        np.testing.assert_array_equal(result, drawn.transpose(2, 1, 0))


def test_the_tumours_of_the_brain_slices_fit_their_images() -> None:
    folder = SHARED / "lgg_mri" / "CS"
    marked = 0
    for mask in sorted((folder / "masks").rglob("*.png"))[:60]:
        image = folder / "images" / mask.relative_to(folder / "masks").with_suffix(".dcm")
        result = read_mask(MaskRef(mask, "image"), geometry_of_picture(image), {"background": 0, "tumour": 1, "255": 1})
        assert set(np.unique(result)) <= {0, 1}
        marked += int(result.sum())
    assert marked > 1000
