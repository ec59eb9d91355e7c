"""Each transfer syntax that a hospital may send, tried on a picture of 16 by 16 pixels that holds every grey once.

A decoder that can be imported may still fail: a native library of another version, a processor without what it was
built for. So each really decodes, by the way that training takes (`dicom/pixels.py`), and the values are compared.
The compressed pictures of `samples.json` were made once; what pydicom itself can write is made here.
Source: DICOM PS3.5 section 10 and annex A (transfer syntaxes).
"""

import base64
import json
from collections.abc import Iterator
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, SecondaryCaptureImageStorage

from site_node.dicom.pixels import decode
from site_node.doctor.finding import Finding, fine, problem
from site_node.errors import PixelsError
from site_node.settings import SiteSettings

CHECK = "decoders"
SIDE = 16
LOSSY_GREYS = 4
"""By so many of 256 greys a lossy picture of full quality may differ."""
LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
RAW = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
RLE = "1.2.840.10008.1.2.5"
SAME_STREAM = {
    "1.2.840.10008.1.2.4.70": "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.81": "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.91": "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.202": "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.203": "1.2.840.10008.1.2.4.201",
}
"""Syntaxes that allow more than another one, and so the other's picture."""
REMEDY = (
    "Install the site's extra again into this environment: pip install -c constraints.txt '.[site]'. Until then such "
    "images are quarantined or fall out of cohorts; export them uncompressed from the archive."
)


def examine(_: SiteSettings) -> list[Finding]:
    """Decode every sample."""
    return [verdict_on_syntaxes({syntax: error_of(syntax, content) for syntax, content in sample_files()})]


def verdict_on_syntaxes(errors: dict[str, float | None]) -> Finding:
    """Say which syntaxes cannot be decoded, or to other values. `errors`: the largest, or None if nothing came. Pure.

    >>> verdict_on_syntaxes({"1.2.840.10008.1.2.5": None}).says
    'Not decoded: RLE Lossless.'
    """
    silent = [UID(syntax).name for syntax, error in errors.items() if error is None]
    wrong = [UID(s).name for s, error in errors.items() if error is not None and error > allowed_error(s)]
    if silent or wrong:
        says = [f"Not decoded: {', '.join(silent)}."] * bool(silent)
        says += [f"Decoded to other values: {', '.join(wrong)}."] * bool(wrong)
        return problem(CHECK, " ".join(says), REMEDY)
    return fine(CHECK, f"All {len(errors)} transfer syntaxes are decoded as they should be.")


def allowed_error(syntax: str) -> float:
    """Return by how many greys a sample of a syntax may differ. Pure."""
    return LOSSY_GREYS if syntax in LOSSY else 0


def ramp() -> NDArray[np.uint8]:
    """Return the picture: every grey from 0 to 255 once, row by row. Shapes: (16, 16)."""
    return np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)


def error_of(syntax: str, content: bytes) -> float | None:
    """Decode one sample and return the largest difference, in greys; None if it cannot be decoded."""
    try:
        picture = decode(content)
    except PixelsError:
        return None
    return None if picture.shape != (SIDE, SIDE) else float(np.abs(picture - ramp()).max())


def sample_files() -> Iterator[tuple[str, bytes]]:
    """Yield each transfer syntax with a whole DICOM file in it; no patient was ever in one."""
    streams = json.loads(files("site_node.doctor").joinpath("samples.json").read_text(encoding="utf-8"))
    for syntax in RAW:
        yield syntax, _file(syntax, ramp().tobytes(), bits=8, compressed=False)
    yield RLE, _file(RLE, RLELosslessEncoder.encode(_described(bits=8), index=0), bits=8, compressed=True)
    compressed = {s: s for s in streams} | SAME_STREAM
    for syntax, source in compressed.items():
        bits = 16 if syntax.endswith(".51") else 8
        yield syntax, _file(syntax, base64.b64decode(streams[source]), bits=bits, compressed=True)


def _described(*, bits: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.2", "2.25.3"
    dataset.Modality, dataset.PatientID = "OT", "doctor"
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    stored = 12 if bits == 16 else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored, stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = ramp().tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def _file(syntax: str, pixels: bytes, *, bits: int, compressed: bool) -> bytes:
    dataset = _described(bits=bits)
    dataset.PixelData = encapsulate([pixels]) if compressed else pixels
    dataset["PixelData"].VR = "OB" if bits == 8 or compressed else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
