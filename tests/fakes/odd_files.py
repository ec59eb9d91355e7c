"""Made-up files of each odd kind that an archive holds, as bytes: those to be read, and those to refuse.

None comes from a hospital or a collection: they are written here, by the rules of DICOM PS3.3 and PS3.5.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.fakes.dicom import make_dataset, uid_of

GREY = np.random.default_rng(4).integers(0, 200, (48, 36), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 11
SIGNED = GREY.astype(np.int16) * 7 - 900
COLOUR = np.random.default_rng(5).integers(0, 255, (48, 36, 3), dtype=np.uint8)
PATIENT = "ODD-PATIENT-4711"


def written(dataset: Dataset) -> bytes:
    """Return a data set as the bytes of a file."""
    buffer = BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    known = {} if syntax.is_transfer_syntax else {"implicit_vr": False, "little_endian": True}
    dataset.save_as(buffer, enforce_file_format=True, **known)
    return buffer.getvalue()


def compressed(pixels: Any, syntax: str, frames: int = 1, **headers: Any) -> Dataset:
    """Return an image whose pixels are compressed by the library's own encoder."""
    dataset = several(pixels, frames) if frames > 1 else make_dataset(pixels, PATIENT)
    dataset.compress(syntax, generate_instance_uid=False)
    for keyword, value in headers.items():
        setattr(dataset, keyword, value)
    return dataset


def several(pixels: Any, frames: int) -> Dataset:
    """Return an image of several frames, each a little brighter."""
    dataset = make_dataset(pixels, PATIENT, NumberOfFrames=frames)
    dataset.PixelData = b"".join((pixels + np.array(number, pixels.dtype)).tobytes() for number in range(frames))
    return dataset


def _encoded(syntax: str) -> Dataset:
    dataset = make_dataset(SIGNED, PATIENT)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = SIGNED.astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
    return dataset


def _palette() -> Dataset:
    headers: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        headers[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        table = (np.arange(256, dtype=np.uint16) * (255 - 60 * number)).tobytes()
        headers[f"{colour}PaletteColorLookupTableData"] = table
    return make_dataset(GREY, PATIENT, **headers)


def _single_bits() -> Dataset:
    bits = (GREY[:16, :16] > 100).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    return make_dataset(bits, PATIENT, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)


def _single_bits_across_bytes() -> Dataset:
    bits = (GREY[:15, :11] > 100).astype(np.uint8)
    frames = np.stack([bits, 1 - bits, bits[::-1]])
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    packed += b"\0" * (len(packed) % 2)
    return make_dataset(
        bits, PATIENT, BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=len(frames), PixelData=packed
    )


def _planar() -> Dataset:
    return make_dataset(COLOUR, PATIENT, PlanarConfiguration=1, PixelData=np.moveaxis(COLOUR, 2, 0).tobytes())


def _enhanced() -> Dataset:
    dataset = several(DEEP, 3)
    groups = []
    for number in range(3):
        transformation, group = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = str(number + 1), "-1024"
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


READABLE: Mapping[str, Callable[[], Dataset]] = {
    "explicit little endian": lambda: make_dataset(GREY, PATIENT),
    "implicit little endian": lambda: _encoded(ImplicitVRLittleEndian),
    "explicit big endian": lambda: _encoded(ExplicitVRBigEndian),
    "deflated": lambda: _encoded(DeflatedExplicitVRLittleEndian),
    "sixteen bits": lambda: make_dataset(DEEP, PATIENT),
    "twelve of sixteen bits": lambda: make_dataset(DEEP, PATIENT, BitsStored=12, HighBit=11),
    "signed": lambda: make_dataset(SIGNED, PATIENT, RescaleSlope="2", RescaleIntercept="-1024"),
    "monochrome1": lambda: make_dataset(GREY, PATIENT, PhotometricInterpretation="MONOCHROME1"),
    "palette": _palette,
    "colour": lambda: make_dataset(COLOUR, PATIENT),
    "colour by plane": _planar,
    "single bits": _single_bits,
    "single bits, frames across bytes": _single_bits_across_bytes,
    "several frames": lambda: several(DEEP, 3),
    "enhanced": _enhanced,
    "rle": lambda: compressed(DEEP, RLELossless),
    "rle, several frames": lambda: compressed(GREY, RLELossless, 3),
    "rle, colour": lambda: compressed(COLOUR, RLELossless),
    "jpeg-ls": lambda: compressed(DEEP, JPEGLSLossless),
    "jpeg-ls, several frames": lambda: compressed(GREY, JPEGLSLossless, 3),
    "jpeg-ls, near lossless": lambda: compressed(GREY, JPEGLSNearLossless),
    "jpeg 2000": lambda: compressed(DEEP, JPEG2000Lossless),
    "jpeg 2000, colour": lambda: compressed(COLOUR, JPEG2000Lossless),
    "a name in Japanese": lambda: make_dataset(
        GREY, PATIENT, SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎"
    ),
    "no patient": lambda: make_dataset(GREY, PATIENT, PatientID=None, PatientName=None),
}


def _changed(make: Callable[[], Dataset], change: Callable[[Dataset], None]) -> bytes:
    dataset = make()
    change(dataset)
    return written(dataset)


def _set(**headers: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in headers.items():
            setattr(dataset, keyword, value)

    return change


def _without_pixels(dataset: Dataset) -> None:
    del dataset.PixelData
    dataset.SOPClassUID = BasicTextSRStorage


def _first_frame_only(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 3


def _asks_for_terabytes(dataset: Dataset) -> None:
    content = bytearray(dataset.PixelData)
    at = content.index(b"\xff\x4f\xff\x51") + 8
    content[at : at + 8] = bytes.fromhex("0020000000200000")  # 2,097,152 rows and columns
    dataset.PixelData = bytes(content)


def _other_samples(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0


def _no_stream(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([bytes(200)])
    dataset["PixelData"].is_undefined_length = True


def _twelve_bit_jpeg_with_bad_scan(dataset: Dataset) -> None:
    frame = bytes.fromhex("c1000b0c00300024010111 00".replace(" ", ""))
    scan = bytes.fromhex("da0008010100000000")
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.51"
    dataset.PixelData = encapsulate([b"\xff\xd8\xff" + frame + b"\xff" + scan + bytes(100)])
    dataset["PixelData"].is_undefined_length = True


def _syntax(uid: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = UID(uid)
        dataset.PixelData = encapsulate([bytes(200)])
        dataset["PixelData"].is_undefined_length = True

    return change


def _directory() -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    dataset.file_meta.MediaStorageSOPInstanceUID = uid_of("directory")
    dataset.DirectoryRecordSequence = []
    return written(dataset)


def _grey() -> Dataset:
    return make_dataset(GREY, PATIENT)


def _one_bit_rle() -> bytes:
    return _changed(lambda: compressed(GREY, RLELossless), _set(BitsAllocated=1, BitsStored=1, HighBit=0))


REFUSED: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "a photograph": (lambda: b"\xff\xd8\xff\xe0" + bytes(300), "not a DICOM file"),
    "a directory": (_directory, "a DICOMDIR"),
    "a report": (lambda: _changed(_grey, _without_pixels), "a structured report"),
    "empty pixels": (lambda: _changed(_grey, _set(PixelData=b"")), "pixel data element is empty"),
    "cut in its pixels": (lambda: written(_grey())[:-50], "ends in the middle of its pixels"),
    "cut in its compressed pixels": (
        lambda: written(compressed(DEEP, JPEG2000Lossless))[:-50],
        "ends in the middle of its pixels",
    ),
    "fewer pixels": (lambda: _changed(_grey, _set(NumberOfFrames=2)), "fewer pixels than rows"),
    "fewer compressed frames": (
        lambda: _changed(lambda: compressed(DEEP, JPEGLSLossless), _first_frame_only),
        "fewer compressed frames",
    ),
    "asks for terabytes": (
        lambda: _changed(lambda: compressed(DEEP, JPEG2000Lossless), _asks_for_terabytes),
        "another size than the header says",
    ),
    "other size than compressed": (
        lambda: _changed(lambda: compressed(DEEP, JPEGLSLossless), _set(Rows=2400)),
        "another size than the header says",
    ),
    "other samples than compressed": (
        lambda: _changed(lambda: compressed(GREY, JPEGLSLossless), _other_samples),
        "other samples",
    ),
    "other samples than in RLE": (
        lambda: _changed(lambda: compressed(GREY, RLELossless), _other_samples),
        "other samples",
    ),
    "no compressed stream": (lambda: _changed(lambda: compressed(GREY, JPEGLSLossless), _no_stream), "there is none"),
    "single bits in RLE": (_one_bit_rle, "1-bit pixels compressed as 'RLE Lossless'"),
    "a JPEG with a bad scan": (
        lambda: _changed(lambda: compressed(DEEP, JPEGLSLossless), _twelve_bit_jpeg_with_bad_scan),
        "the JPEG's scan header",
    ),
    "a syntax newer than the library": (
        # the library refuses to write what it does not know
        lambda: _changed(_grey, _syntax("1.2.940.10008.1.2.8.1")).replace(b"1.2.940.10008.", b"1.2.840.10008."),
        "'Deflated Image Frame Compression', which no installed decoder reads",
    ),
    "a film": (lambda: _changed(_grey, _syntax("1.2.840.10008.1.2.4.102")), "which no installed decoder reads"),
    "a private syntax": (lambda: _changed(_grey, _syntax("1.2.3.4.5")), "private to a manufacturer"),
    "a gigantic frame": (lambda: _changed(_grey, _set(Rows=65535, Columns=65535)), "pixels, the most that is accepted"),
    "gigantic in all": (lambda: _changed(_grey, _set(NumberOfFrames=2_000_000_000)), "the most that is accepted"),
    "nine bits": (lambda: _changed(_grey, _set(BitsAllocated=9)), "a number of bits or samples that no image has"),
}
