"""A file taken apart: the head is read, never guessed where it speaks, and the rest stays as it came."""

from io import BytesIO

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.ingest.answers import FoundInstance
from site_node.ingest.part10 import arrived_from
from tests.fakes.dicom import make_dataset

PIXELS = np.zeros((2, 2), dtype=np.uint16)


def written(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_head_says_what_it_is_and_the_rest_is_left_alone(syntax: str) -> None:
    dataset = make_dataset(PIXELS)
    data = written(dataset, syntax)
    arrived = arrived_from(data, FoundInstance(str(dataset.SOPInstanceUID), None))
    assert (arrived.announced.syntax, arrived.announced.class_uid) == (syntax, dataset.SOPClassUID)
    assert data.endswith(arrived.content)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_without_head_is_the_instance_that_was_asked_for(syntax: str) -> None:
    dataset = make_dataset(PIXELS)
    content = arrived_from(written(dataset, syntax), FoundInstance("1", None)).content
    arrived = arrived_from(content, FoundInstance("1.2", "1.2.840.10008.5.1.4.1.1.2"))
    assert arrived.content == content
    assert (arrived.announced.instance_uid, arrived.announced.syntax) == ("1.2", syntax)
    assert arrived.announced.class_uid == "1.2.840.10008.5.1.4.1.1.2"


def test_a_damaged_head_is_announced_as_nothing() -> None:
    data = bytearray(written(make_dataset(PIXELS), ExplicitVRLittleEndian))
    data[148:160] = b"\x02\x00\x02\x00ZZ\xff\xff????"
    assert arrived_from(bytes(data), FoundInstance("1.2", "1.2.3")).announced.class_uid == ""
