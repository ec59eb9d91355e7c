"""Burnt-in text: found in real radiographs, blanked, and refused where a policy or a header says so."""

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless

from site_node.dicom.burnt_in import text_lines
from site_node.dicom.connected_components import connected_components
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentified_file import DeidentifiedFile, deidentified_file
from site_node.dicom.pixel_cleaning import reason_to_look
from site_node.errors import DeidentificationError
from tests.benchmarks.burnt_in_text import STYLES, Burnt, burn, radiographs, shares
from tests.fakes.dicom import make_dataset, radiograph
from tests.site_node.dicom.planting import BASIC, PSEUDONYMS, written

NAME = "Smith, Anna 12.03.1956"


def ultrasound(picture: np.ndarray[Any, Any], **headers: Any) -> Dataset:
    return make_dataset(picture, Modality="US", **headers)


def named(size: int = 20) -> Burnt:
    """Return a picture with a name, as many a modality writes it into a corner."""
    picture = radiograph(positive=False, size=256, generator=np.random.default_rng(5))
    made = burn(picture, NAME, size, "box", np.random.default_rng(7))
    assert made is not None
    return made


def cleaned(source: Dataset, policy: DeidentificationPolicy = BASIC) -> tuple[DeidentifiedFile, Dataset]:
    made = deidentified_file(written(source), policy, PSEUDONYMS)
    return made, pydicom.dcmread(BytesIO(made.content))


def claims_clean_pixels(dataset: Dataset) -> bool:
    return "113101" in [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [10, 20])
def test_most_text_in_real_radiographs_is_found(size: int, style: str) -> None:
    found = np.array(shares(list(radiographs(24)), size, style, seed=2))
    assert len(found) >= 8
    assert np.mean(found >= 0.3) >= 0.9
    assert found.mean() >= 0.85


def test_radiographs_without_text_hardly_ever_raise_an_alarm() -> None:
    assert sum(bool(text_lines(picture)) for picture in radiographs(40)) <= 2


@pytest.mark.parametrize("picture", [np.zeros((64, 64)), np.ones((3, 3)), np.zeros((1, 500)), np.eye(40)])
def test_a_picture_of_nothing_has_no_text(picture: np.ndarray[Any, Any]) -> None:
    assert text_lines(picture) == []


def test_text_is_blanked_and_the_rest_of_the_picture_is_not() -> None:
    burnt = named()
    made, copy = cleaned(ultrasound(burnt.picture))
    after = copy.pixel_array
    assert np.ptp(after[burnt.strokes]) == 0
    assert text_lines(after) == []
    assert np.mean(after == burnt.picture) > 0.7
    assert copy.BurnedInAnnotation == "NO"
    assert claims_clean_pixels(copy)
    assert made.report.notes["burnt-in text blanked"] == 1


def test_a_cleaned_copy_is_its_own_copy() -> None:
    made, _ = cleaned(ultrasound(named().picture))
    assert deidentified_file(made.content, BASIC, PSEUDONYMS).content == made.content


def test_a_compressed_picture_is_blanked_and_stored_uncompressed() -> None:
    burnt = named()
    source = ultrasound(burnt.picture)
    source.compress(JPEGLSLossless, generate_instance_uid=False)
    _, copy = cleaned(source)
    assert np.ptp(copy.pixel_array[burnt.strokes]) == 0
    assert not copy.file_meta.TransferSyntaxUID.is_compressed


def test_text_in_any_frame_and_in_colour_is_blanked_in_all() -> None:
    burnt = named()
    first = radiograph(positive=False, size=256, generator=np.random.default_rng(6))
    frames = np.repeat(np.stack([first, burnt.picture])[..., None], 3, axis=3)
    source = ultrasound(frames[0], NumberOfFrames=2)
    source.PixelData = frames.tobytes()
    _, copy = cleaned(source)
    assert copy.pixel_array.shape == (2, 256, 256, 3)
    assert np.ptp(copy.pixel_array[:, burnt.strokes]) == 0


def test_a_policy_may_refuse_what_has_text() -> None:
    refusing = DeidentificationPolicy(burnt_in_text="refuse")
    with pytest.raises(DeidentificationError, match="the policy refuses"):
        cleaned(ultrasound(named().picture), refusing)
    clean = radiograph(positive=True, size=256, generator=np.random.default_rng(8))
    assert cleaned(ultrasound(clean), refusing)[1].BurnedInAnnotation == "NO"


def test_text_that_a_header_announces_and_nobody_finds_is_refused() -> None:
    clean = radiograph(positive=True, size=64, generator=np.random.default_rng(8))
    with pytest.raises(DeidentificationError, match="none was found"):
        cleaned(make_dataset(clean, BurnedInAnnotation="YES"))


def test_pixels_that_cannot_be_searched_are_refused_where_there_is_a_reason_to() -> None:
    source = ultrasound(named().picture, Rows=9999)
    with pytest.raises(DeidentificationError, match="cannot be searched"):
        cleaned(source)


def test_everything_outside_the_ultrasound_regions_is_blanked() -> None:
    picture = radiograph(positive=True, size=128, generator=np.random.default_rng(9))
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 99, 89
    _, copy = cleaned(ultrasound(picture, SequenceOfUltrasoundRegions=Sequence([region])))
    after = copy.pixel_array
    assert np.array_equal(after[30:90, 20:100], picture[30:90, 20:100])
    assert np.ptp(np.delete(after, np.s_[30:90], axis=0)) == 0


def test_a_radiograph_is_searched_only_if_its_header_or_the_policy_says_so() -> None:
    burnt = named()
    source = make_dataset(burnt.picture)
    _, copy = cleaned(source)
    assert copy.PixelData == source.PixelData
    assert not claims_clean_pixels(copy)
    assert "BurnedInAnnotation" not in copy
    _, copy = cleaned(source, DeidentificationPolicy(look_at="everything"))
    assert np.ptp(copy.pixel_array[burnt.strokes]) == 0
    assert claims_clean_pixels(copy)


@pytest.mark.parametrize(
    "headers",
    [
        {"Modality": "US"},
        {"Modality": "OT"},
        {"BurnedInAnnotation": "YES"},
        {"ConversionType": "WSD"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_header_gives_reasons_to_search(headers: dict[str, Any]) -> None:
    assert reason_to_look(make_dataset(np.zeros((4, 4), np.uint8), **headers)) is not None
    assert reason_to_look(make_dataset(np.zeros((4, 4), np.uint8))) is None


@pytest.mark.parametrize(("kind", "value"), [("<u2", 0x0ABC), ("<i2", -5)])
def test_overlays_in_unused_bits_are_cleared_and_pixels_keep_their_values(kind: str, value: int) -> None:
    source = make_dataset(np.full((8, 8), value, dtype=kind), BitsStored=12, HighBit=11)
    low = np.frombuffer(source.PixelData, dtype="<u2") & 0x0FFF
    source.PixelData = (low | 0x8000).astype("<u2").tobytes()  # the top bit holds an overlay
    source.add_new(0x60000100, "US", 16)
    source.add_new(0x60000102, "US", 15)
    _, copy = cleaned(source)
    assert (np.frombuffer(copy.PixelData, dtype=kind) == value).all()
    assert not any(element.tag.group == 0x6000 for element in copy)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=100)
def test_components_are_those_of_a_flood_fill(mask: np.ndarray[Any, Any]) -> None:
    found = connected_components(mask)
    boxes = sorted(zip(found.top, found.left, found.bottom, found.right, found.pixels, strict=True))
    assert boxes == sorted(_flooded(mask.copy()))


def _flooded(mask: np.ndarray[Any, Any]) -> list[tuple[int, int, int, int, int]]:
    boxes = []
    while mask.any():
        row, column = np.argwhere(mask)[0]
        waiting, seen = [(int(row), int(column))], []
        mask[row, column] = False
        while waiting:
            r, c = waiting.pop()
            seen.append((r, c))
            for y in range(max(0, r - 1), min(mask.shape[0], r + 2)):
                for x in range(max(0, c - 1), min(mask.shape[1], c + 2)):
                    if mask[y, x]:
                        mask[y, x] = False
                        waiting.append((y, x))
        rows, columns = zip(*seen, strict=True)
        boxes.append((min(rows), min(columns), max(rows) + 1, max(columns) + 1, len(seen)))
    return boxes
