"""Odd files: each becomes the pixels that pydicom decodes, all frames, or a refusal that a person understands."""

import contextlib
import csv
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian

from site_node.cohort.index_report import index_of_any_folder, report_as_json
from site_node.dicom import deflated
from site_node.dicom.folder import examine
from site_node.dicom.headers import checked_header, read_header
from site_node.dicom.pixels import UNDECODABLE, check_pixels, decode, opened, stored_frames
from site_node.dicom.quiet import quiet
from site_node.errors import PixelsError, UnreadableError
from tests.fakes.dicom import make_dataset
from tests.fakes.odd_files import GREY, PATIENT, READABLE, REFUSED, written

SHARED = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"
LUMINANCE = (0.299, 0.587, 0.114)


def reference_frames(dataset: Dataset) -> NDArray[Any]:
    """Return all frames as pydicom decodes them in one call, (frame, row, column[, sample])."""
    frames = np.asarray(dataset.pixel_array)
    return frames if int(dataset.get("NumberOfFrames") or 1) > 1 else frames[None]


def reference_grey(dataset: Dataset, stored: NDArray[Any], frame: int) -> NDArray[Any]:
    """Return one frame's grey values from pydicom's functions alone."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3] @ np.array(LUMINANCE))
    for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        groups = dataset.get(name) or []
        group = groups[frame if name.startswith("Per") else 0] if groups else Dataset()
        if group.get("PixelValueTransformationSequence"):
            item = group.PixelValueTransformationSequence[0]
            rescaled = stored * float(item.RescaleSlope) + float(item.RescaleIntercept)
            break
    else:
        rescaled = apply_modality_lut(stored, dataset)
    return (
        rescaled.max() + rescaled.min() - rescaled if dataset.PhotometricInterpretation == "MONOCHROME1" else rescaled
    )


def assert_pixels_are_pydicoms(content: bytes) -> int:
    """Compare every frame, as stored and as grey, with pydicom's own decoding; return how many there are."""
    with quiet():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        expected = reference_frames(dataset)
    frames = list(stored_frames(opened(content)))
    np.testing.assert_array_equal(np.stack(frames), expected)
    for number in {0, len(frames) // 2, len(frames) - 1}:
        with quiet():
            grey = reference_grey(dataset, expected[number], number)
        np.testing.assert_allclose(decode(content, number), grey, rtol=1e-5, atol=1e-3)
    return len(frames)


@pytest.mark.parametrize("kind", READABLE)
def test_each_kind_of_file_has_the_pixels_that_pydicom_decodes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.dcm"
    path.write_bytes(written(READABLE[kind]()))
    header = read_header(path)
    assert assert_pixels_are_pydicoms(path.read_bytes()) == header.frames
    assert examine(path).header == header


@pytest.mark.parametrize("kind", REFUSED)
def test_each_kind_of_useless_file_has_its_reason_from_its_header_alone(tmp_path: Path, kind: str) -> None:
    make, words = REFUSED[kind]
    path = tmp_path / "odd.dcm"
    path.write_bytes(make())
    with pytest.raises(UnreadableError) as caught:
        read_header(path)
    assert words in caught.value.message
    assert PATIENT not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_index_refuses_is_not_decoded_either(kind: str) -> None:
    with pytest.raises(PixelsError):
        check_pixels(REFUSED[kind][0]())


def test_an_error_of_the_library_is_not_carried_along() -> None:
    broken = make_dataset(GREY, PATIENT, RescaleIntercept="0", RescaleSlope="1")
    content = written(broken).replace(b"\x28\x00\x53\x10DS\x02\x001 ", b"\x28\x00\x53\x10DS\x02\x00XY")
    with pytest.raises(PixelsError) as caught:
        decode(content)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_deflated_bomb_is_refused_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflated, "MOST_INFLATED_BYTES", 1 << 20)
    dataset = make_dataset(np.zeros((2000, 1000), np.uint8), PATIENT)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = written(dataset)
    assert len(content) < 10_000
    with pytest.raises(UnreadableError, match="inflates to more than 1 MiB"):
        checked_header(BytesIO(content), len(content))


def test_a_deflated_file_that_cannot_be_inflated_is_called_damaged() -> None:
    dataset = make_dataset(GREY, PATIENT)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = written(dataset)
    with pytest.raises(UnreadableError, match="cannot be inflated"):
        checked_header(BytesIO(content[:-300] + bytes(range(256)) + bytes(44)), len(content))


def test_the_report_groups_the_reasons_with_their_numbers(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"empty-{number}.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(written(make_dataset(GREY))[:-50])
    report = report_as_json(index_of_any_folder(tmp_path), [tmp_path])
    assert report["reasons"] == {"the file is empty": 3, "damaged: the file ends in the middle of its pixels": 1}


def test_pixels_that_turn_out_not_to_decode_are_quarantined_when_all_are_decoded(tmp_path: Path) -> None:
    whole = written(READABLE["jpeg 2000"]())
    (tmp_path / "whole.dcm").write_bytes(whole)
    (tmp_path / "broken.dcm").write_bytes(whole.replace(b"\xff\x52", b"\0\0"))  # no coding style left
    assert index_of_any_folder(tmp_path).indexed == 2  # the header and the stream's size are as they should be
    report = index_of_any_folder(tmp_path, decode=True)
    assert report.indexed == 1
    assert [(entry.file.name, entry.reason) for entry in report.quarantined] == [("broken.dcm", UNDECODABLE)]


KINDS = st.sampled_from([written(make()) for make in READABLE.values()])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a file of some kind with some bytes changed, mostly of its header, and sometimes cut."""
    content = bytearray(draw(KINDS))
    for _ in range(draw(st.integers(1, 8))):
        content[draw(st.integers(0, min(len(content), 1200) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@settings(max_examples=250, deadline=None)
@given(damaged())
def test_no_damage_leads_to_another_exception_than_the_sites_own(content: bytes) -> None:
    with contextlib.suppress(UnreadableError):
        checked_header(BytesIO(content), len(content))
    with contextlib.suppress(PixelsError):
        check_pixels(content)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_after_the_preamble_lead_to_another_exception(tail: bytes) -> None:
    content = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 0) + tail
    with contextlib.suppress(UnreadableError):
        checked_header(BytesIO(content), len(content))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_inflated_bytes_lead_to_another_exception(inside: bytes) -> None:
    dataset = make_dataset(GREY, PATIENT)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = written(dataset)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = whole[: _dataset_start(whole)] + compressor.compress(inside) + compressor.flush()
    with contextlib.suppress(UnreadableError):
        checked_header(BytesIO(content), len(content))


def _dataset_start(content: bytes) -> int:
    return 132 + 12 + int(struct.unpack("<I", content[140:144])[0])


def shared_files() -> Iterator[tuple[Path, dict[str, str]]]:
    with (SHARED / "inventory.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield SHARED / row["file"], row


@pytest.mark.shared
def test_every_odd_file_has_pydicoms_pixels_or_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for path, row in shared_files():
        outcome = examine(path)
        if outcome.header is None:
            assert outcome.problem, path.name
            assert_names_nothing_of(path, outcome.problem)
            nameless = "the header lacks the SOP instance UID" in outcome.problem
            assert row["decodes"] != "yes" or nameless, (path.name, outcome.problem)
            outcomes["refused"] += 1
            continue
        assert row["decodes"] == "yes", path.name
        assert assert_pixels_are_pydicoms(path.read_bytes()) == outcome.header.frames
        outcomes["read"] += 1
    assert outcomes == {"read": 253, "refused": 118}


def assert_names_nothing_of(path: Path, reason: str) -> None:
    """Check that a reason quotes no value of the header (code strings of the standard apart)."""
    with quiet(), contextlib.suppress(Exception):
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        for element in dataset:
            if element.VR in ("PN", "LO", "SH", "UI", "LT", "ST", "DA") and len(str(element.value)) > 3:
                assert str(element.value) not in reason, path.name


@pytest.mark.shared
def test_the_odd_files_in_damaged_copies_lead_to_no_other_exception() -> None:
    generator = np.random.default_rng(7)
    small = [path for path, row in shared_files() if int(row["bytes"]) < 60_000]
    for _ in range(400):
        content = bytearray(small[generator.integers(len(small))].read_bytes())
        for _ in range(generator.integers(1, 8)):
            content[generator.integers(len(content))] = generator.integers(256)
        content = content[: generator.integers(len(content) // 2, len(content) + 1)]
        with contextlib.suppress(PixelsError):
            check_pixels(bytes(content))
