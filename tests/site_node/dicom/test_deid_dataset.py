"""What a de-identified dataset is and says, beyond the rows of the table."""

import json
import re
from datetime import date
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ImplicitVRLittleEndian

from site_node.dicom.deidentification import deidentify
from site_node.dicom.deidentification_policy import DeidentificationPolicy, SafePrivate
from site_node.dicom.deidentification_report import Fate, Report
from site_node.dicom.deidentified_file import deidentified_file
from site_node.dicom.profile import Action, row_of, rows, type_of
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.errors import DeidentificationError
from tests.fakes.dicom import make_dataset
from tests.site_node.dicom.planting import BASIC, PSEUDONYMS, ct, written

OTHER_KEY = Pseudonyms(b"o" * 32)
EVERYTHING = DeidentificationPolicy(
    modified_dates=True, device_identity=True, patient_characteristics=True, clean_descriptors=True
)
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def copied(source: Dataset, policy: DeidentificationPolicy = BASIC) -> Dataset:
    return deidentify(source, policy, PSEUDONYMS).dataset


def codes_of(dataset: Dataset) -> list[str]:
    return [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


def test_a_copy_claims_in_codes_what_was_done_to_it() -> None:
    copy = copied(ct())
    assert (copy.PatientIdentityRemoved, copy.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert codes_of(copy) == ["113100"]
    copy = copied(ct(), EVERYTHING)
    assert codes_of(copy) == ["113100", "113105", "113107", "113108", "113109"]
    assert copy.LongitudinalTemporalInformationModified == "MODIFIED"
    assert {item.CodingSchemeDesignator for item in copy.DeidentificationMethodCodeSequence} == {"DCM"}
    assert all(len(item.CodeMeaning) <= 64 for item in copy.DeidentificationMethodCodeSequence)


def test_the_codes_are_those_of_the_standard() -> None:
    from pydicom.sr.codedict import codes

    from site_node.dicom.profile import BASIC_PROFILE, CODES

    known = {getattr(codes.cid7050, name).value: getattr(codes.cid7050, name).meaning for name in codes.cid7050.dir()}
    assert {BASIC_PROFILE, *CODES.values()} <= set(known.items())


def test_what_an_earlier_copy_claimed_is_not_carried_on() -> None:
    source = ct()
    source.DeidentificationMethod = "by hand, by Dr. Jones"
    copy = copied(source)
    assert b"Jones" not in written(copy)
    assert codes_of(copy) == ["113100"]


@pytest.mark.parametrize("policy", [BASIC, EVERYTHING], ids=["basic", "everything"])
def test_a_copy_is_its_own_copy(policy: DeidentificationPolicy) -> None:
    source = ct()
    source.StudyDate, source.PatientBirthDate, source.PatientAge = "20200131", "19300101", "090Y"
    source.FrameOfReferenceUID, source.SeriesDescription = "1.2.3.9", "AX T2 for Mustermann"
    once = written(copied(source, policy))
    assert written(copied(pydicom.dcmread(BytesIO(once)), policy)) == once


def test_the_source_is_left_as_it_is() -> None:
    source = ct(DataElement("StudyDate", "DA", "20200131"))
    before = written(source)
    copied(source, EVERYTHING)
    assert written(source) == before


def test_uids_agree_over_files_and_runs_and_differ_by_key() -> None:
    one, other = ct(), ct()
    other.SOPInstanceUID = "1.2.3.5"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3.1"
    series.ReferencedInstanceSequence = Sequence([reference])
    other.ReferencedSeriesSequence = Sequence([series])
    first, second = copied(one), copied(other)
    found = second.ReferencedSeriesSequence[0]
    assert found.SeriesInstanceUID == first.SeriesInstanceUID == second.SeriesInstanceUID
    assert found.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert found.ReferencedInstanceSequence[0].ReferencedSOPClassUID == CTImageStorage
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert deidentify(one, BASIC, OTHER_KEY).dataset.SOPInstanceUID != first.SOPInstanceUID


def test_a_uid_that_the_standard_registers_stays_and_one_that_only_looks_so_does_not() -> None:
    source = ct()
    source.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"  # Talairach Brain Atlas
    assert copied(source).FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"
    source.FrameOfReferenceUID = "1.2.840.10008.4711.815"
    assert copied(source).FrameOfReferenceUID.startswith("2.25.")


def test_an_unlisted_uid_is_replaced_too_but_a_coding_scheme_stays() -> None:
    source = ct()
    source.VolumeFrameOfReferenceUID = "1.2.3.77"
    scheme = Dataset()
    scheme.CodingSchemeUID = "2.16.840.1.113883.6.96"
    source.CodingSchemeIdentificationSequence = Sequence([scheme])
    copy = copied(source)
    assert copy.VolumeFrameOfReferenceUID.startswith("2.25.")
    assert copy.CodingSchemeIdentificationSequence[0].CodingSchemeUID == "2.16.840.1.113883.6.96"


def test_dates_of_one_patient_move_together_and_their_distance_stays() -> None:
    policy = DeidentificationPolicy(modified_dates=True)
    first, second, stranger = ct(), ct(), ct()
    first.StudyDate, second.StudyDate, stranger.StudyDate = "20200131", "20200305", "20200131"
    first.AcquisitionDateTime, first.StudyTime = "20200131235959.5+0100", "235959"
    stranger.PatientID = "patient-2"
    a, b, c = (copied(source, policy) for source in (first, second, stranger))
    assert (_day(b.StudyDate) - _day(a.StudyDate)).days == 34
    assert (_day("20200131") - _day(a.StudyDate)).days == PSEUDONYMS.days_back("patient-1") >= 366
    assert a.AcquisitionDateTime == f"{a.StudyDate}235959.5+0100"
    assert a.StudyTime == "235959"
    assert c.StudyDate != a.StudyDate


def test_what_is_no_date_is_removed_and_not_moved() -> None:
    source = ct(DataElement("AcquisitionDate", "DA", "31.01.2020", already_converted=True))
    source["AcquisitionTime"] = DataElement("AcquisitionTime", "TM", "by Dr. Jones", already_converted=True)
    content = written(copied(source, DeidentificationPolicy(modified_dates=True)))
    assert b"31.01" not in content
    assert b"Jones" not in content


def test_ages_over_89_are_one_and_birth_dates_go() -> None:
    source = ct(DataElement("PatientAge", "AS", "097Y"), DataElement("PatientBirthDate", "DA", "19230101"))
    copy = copied(source, EVERYTHING)
    assert copy.PatientAge == "090Y"
    assert copy.PatientBirthDate == ""
    source.PatientAge = "089Y"
    assert copied(source, EVERYTHING).PatientAge == "089Y"
    assert "PatientAge" not in copied(source)


def test_kept_text_that_repeats_the_patient_is_emptied() -> None:
    source = ct(DataElement("Manufacturer", "LO", "ACME"), DataElement("SequenceName", "SH", "mustermann t2"))
    source.ImageLaterality = "L"
    made = deidentify(source, EVERYTHING, PSEUDONYMS)
    assert made.dataset.Manufacturer == "ACME"
    assert made.dataset.SequenceName == ""
    assert made.report.counts["SequenceName", Fate.REPEATED] == 1


def test_a_coded_value_that_repeats_the_patient_is_emptied_and_the_others_stay() -> None:
    source = ct(
        DataElement("ImageType", "CS", ["DERIVED", "PRIMARY", "MUSTERMANN"]),
        DataElement("ScanOptions", "CS", "X_MUSTERMANN"),
        DataElement("PatientSex", "CS", "MUSTERMANN"),
    )
    made = deidentify(source, EVERYTHING, PSEUDONYMS)
    assert list(made.dataset.ImageType) == ["DERIVED", "PRIMARY", ""]
    assert b"MUSTERMANN" not in written(made.dataset).upper()
    assert made.report.counts["ImageType", Fate.REPEATED] == 1


def test_a_patient_who_is_called_like_a_term_of_the_standard_does_not_empty_it() -> None:
    source = ct(
        DataElement("BodyPartExamined", "CS", "BREAST"), DataElement("ImageType", "CS", ["ORIGINAL", "PRIMARY"])
    )
    source.PatientID = "BREAST-MRI-001"
    made = deidentify(source, EVERYTHING, PSEUDONYMS)
    assert made.dataset.BodyPartExamined == "BREAST"
    assert made.report.counts["ImageType", Fate.KEPT] == 1


def test_what_a_program_wrote_into_the_image_type_is_for_a_person_to_look_at() -> None:
    made = deidentify(ct(DataElement("ImageType", "CS", ["DERIVED", "PRIMARY", "HUBER"])), EVERYTHING, PSEUDONYMS)
    assert any(line.startswith("ImageType x 1: kept: free text") for line in made.report.warnings())


def test_a_series_that_is_numbered_like_its_patient_loses_its_number() -> None:
    source = ct(DataElement("SeriesNumber", "IS", "4711081"), DataElement("InstanceNumber", "IS", "7"))
    source.PatientID = "4711081"
    copy = copied(source)
    assert copy["SeriesNumber"].is_empty
    assert copy.InstanceNumber == 7


def test_descriptions_keep_only_words_that_are_known_to_be_safe() -> None:
    source = ct(DataElement("SeriesDescription", "LO", "AX T2 FLAIR 5.0mm 4711 Mustermann Huber"))
    assert copied(source, EVERYTHING).SeriesDescription == "AX T2 FLAIR 5.0mm"
    assert "SeriesDescription" not in copied(source)


def test_private_attributes_on_the_list_stay_with_their_creator_and_the_others_go() -> None:
    source = ct()
    block = source.private_block(0x0019, "ACME MR", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "LO", "for Mustermann")
    block.add_new(0x0E, "LO", "secret")
    source.private_block(0x0019, "OTHER", create=True).add_new(0x0C, "LO", "other")
    listed = SafePrivate(creator="ACME MR", group=0x0019, elements=(0x0C, 0x0D))
    made = deidentify(source, DeidentificationPolicy(safe_private=(listed,)), PSEUDONYMS)
    copy = made.dataset
    assert copy.private_block(0x0019, "ACME MR")[0x0C].value == 1000
    assert [element.tag.element & 0xFF for element in copy if element.tag.is_private] == [0x10, 0x0C]
    assert "113111" in codes_of(copy)
    assert not any(word in written(copy) for word in (b"Mustermann", b"secret", b"OTHER"))


def test_a_nameless_patient_is_told_from_another_by_the_imaging_study() -> None:
    one, other = ct(), ct()
    one.PatientID = other.PatientID = ""
    other.StudyInstanceUID = "1.2.4"
    assert copied(one).PatientID != copied(other).PatientID
    assert copied(one).PatientID.startswith("P-")
    assert deidentify(one, BASIC, PSEUDONYMS, "known").dataset.PatientID == PSEUDONYMS.patient_code("known")


def test_file_meta_information_is_made_anew() -> None:
    source = ct()
    source.file_meta.SourceApplicationEntityTitle = "DR JONES"
    source.file_meta.add_new(0x00020102, "OB", b"private!")
    source.preamble = b"Mustermann".ljust(128, b"\0")
    content = written(copied(source))
    assert content[:128] == bytes(128)
    assert b"JONES" not in content
    assert b"private!" not in content


def test_text_in_another_character_set_is_written_as_unicode() -> None:
    source = ct()
    source.SpecificCharacterSet = "ISO_IR 100"
    source.Manufacturer, source.PatientName = "Gerätebau", "Müller^Jörg"
    back = pydicom.dcmread(BytesIO(written(copied(pydicom.dcmread(BytesIO(written(source)))))))
    assert (back.SpecificCharacterSet, back.Manufacturer) == ("ISO_IR 192", "Gerätebau")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_pixels_and_encoding_are_carried_over(syntax: UID) -> None:
    source = make_dataset(PIXELS)
    source.file_meta.TransferSyntaxUID = syntax
    content = written(source) if syntax.is_little_endian else _big_endian(source)
    original = pydicom.dcmread(BytesIO(content))
    copy = pydicom.dcmread(BytesIO(deidentified_file(content, BASIC, PSEUDONYMS).content))
    assert copy.file_meta.TransferSyntaxUID == syntax
    assert copy.PixelData == original.PixelData
    assert np.array_equal(copy.pixel_array, PIXELS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a DICOM file"),
        (b"hello " * 100, "not a DICOM file"),
        (written(ct()), "no image"),
        (written(make_dataset(PIXELS, EncapsulatedDocument=b"%PDF")), "no image"),
        (written(make_dataset(PIXELS))[:300], "no image|damaged"),
    ],
    ids=["empty", "text", "no pixels", "document", "cut short"],
)
def test_what_is_no_image_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(DeidentificationError, match=reason) as caught:
        deidentified_file(content, BASIC, PSEUDONYMS)
    assert "Made" not in str(caught.value)


def test_the_report_names_keywords_and_never_a_value() -> None:
    source = make_dataset(PIXELS, "MRN4711", Manufacturer="ACME", AccessionNumber="ACC0815", StudyDate="20200131")
    report = deidentify(source, EVERYTHING, PSEUDONYMS).report
    text = json.dumps(report.as_json()) + str(report.warnings()) + str(report.survivors())
    assert not any(value in text for value in ("ACME", "MRN4711", "ACC0815", "20200131", "Made"))
    assert ("Manufacturer", str(Fate.FREE_TEXT), 1) in report.survivors()
    assert any(line.startswith("Manufacturer x 1") for line in report.warnings())
    assert Report.from_json(json.loads(json.dumps(report.as_json()))).counts == report.counts


def test_a_damaged_value_is_quoted_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    source = ct(DataElement("PatientBirthDate", "DA", "Mustermann", already_converted=True))
    source["PatientWeight"] = DataElement("PatientWeight", "DS", "Mustermann", already_converted=True)
    source["FrameOfReferenceUID"] = DataElement("FrameOfReferenceUID", "UI", "Mustermann", already_converted=True)
    content = written(source)
    deidentify(pydicom.dcmread(BytesIO(content)), EVERYTHING, PSEUDONYMS)
    assert "Mustermann" not in caplog.text


def test_every_attribute_of_the_source_is_in_the_report() -> None:
    source = make_dataset(PIXELS, Manufacturer="ACME")
    report = deidentify(source, BASIC, PSEUDONYMS).report
    assert sum(report.counts.values()) == len(list(source.iterall()))


def test_the_type_of_an_attribute_decides_between_the_forms_with_a_slash() -> None:
    row = row_of(0x00080023)  # Content Date: Z/D
    assert row is not None
    assert row.basic_action("2") is Action.EMPTY
    assert row.basic_action("1") is Action.DUMMY
    assert row.basic_action() is Action.DUMMY  # not known: what fits every type
    serial = next(row for row in rows() if row.name == "Device Serial Number")  # X/Z/D
    assert [serial.basic_action(t) for t in ("3", "2C", "1C", None)] == ["X", "Z", "D", "D"]
    assert type_of(str(CTImageStorage), "ContentDate") == "2C"
    assert type_of("1.2.3", "ContentDate") is None


def test_uids_are_valid_and_recognised_by_their_maker_alone() -> None:
    uid = PSEUDONYMS.uid("1.2.3")
    assert UID(uid).is_valid
    assert re.fullmatch(r"2\.25\.[1-9][0-9]{1,38}", uid)
    assert PSEUDONYMS.made_uid(uid)
    assert not OTHER_KEY.made_uid(uid)
    assert not PSEUDONYMS.made_uid("2.25.12345")
    assert not PSEUDONYMS.made_uid("2.25." + "9" * 39)
    code = PSEUDONYMS.patient_code("P1")
    assert PSEUDONYMS.made_code(code)
    assert not OTHER_KEY.made_code(code)
    assert len(code) <= 64


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _big_endian(source: Dataset) -> bytes:
    source.PixelData = PIXELS.astype(">u2").tobytes()
    return written(source)
