"""What becomes of each attribute, one by one and in nested sequences; `deidentification.py` begins the walk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from site_node.dicom.attribute_values import DUMMIES, TIME, TIMEZONE, capped_age, is_of_terms, moved_date, safe_words
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentification_report import Fate, Report
from site_node.dicom.element_value import first_value
from site_node.dicom.profile import Action, Option, row_of, type_of
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.dicom.repeated_names import is_long_number, repeats

MAX_DEPTH = 32
SHORT_TEXT = frozenset({"LO", "SH", "UC"})
NUMBERS = frozenset({"IS", "DS"})
CODED = "CS"
OWN_VALUES = 2
"""Values of ImageType that the standard defines for all images; the others are the machine's or a program's own."""
TEXT = SHORT_TEXT | {"LT", "ST", "UT"}
TELLING = frozenset({"PN", "DA", "DT", "TM", "LT", "ST", "UT", "UR", "AE", "AS", "UN"})
"""Forms that an attribute goes by if the standard does not list it: persons, dates, prose and addresses."""
MEANINGS = frozenset(
    {"CodingSchemeUID", "ContextUID", "MappingResourceUID", "ContextGroupExtensionCreatorUID", "SOPClassesInStudy"}
)
CODES = frozenset({"CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "LongCodeValue"})
STANDARD_SCHEMES = frozenset({"DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "RADLEX", "I9C", "I10", "I10C", "FMA", "UMLS"})
"""Whose codes and meanings are published; other schemes are a hospital's own, and their meanings are its own text."""
BEYOND = frozenset(
    {
        *("PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "BreedRegistrationNumber"),
        *("PlacerOrderNumberProcedure", "FillerOrderNumberProcedure", "PlacerOrderNumberImagingServiceRequestRetired"),
        *("FillerOrderNumberImagingServiceRequestRetired", "HL7InstanceIdentifier", "StorageMediaFileSetID", "ImageID"),
        *("CommentsOnTheScheduledProcedureStep", "RequestedProcedureDescriptionTrial", "DocumentTitle", "OwnerID"),
        *(
            "PrintJobID",
            "NTPSourceAddress",
            "SpecimenDescriptionTrial",
            "FilenameInContainer",
            "SubstanceAdministrationDeviceID",
        ),
    }
)
"""Attributes of short text that the table does not list, and that name a patient, an order or a file."""
CLAIMS = frozenset(
    {
        *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
        *("LongitudinalTemporalInformationModified", "SpecificCharacterSet"),
    }
)
"""Written anew in every copy: what an earlier one claimed is not known to be true."""


@dataclass(frozen=True)
class Place:
    """Where an attribute stands: how deep, in a sequence that is cleaned, in an item that holds a standard's code."""

    depth: int = 0
    cleaned: bool = False
    coded: bool = False

    @property
    def inside(self) -> "Place":
        """Return the place of the items of a sequence that stands here."""
        return replace(self, depth=self.depth + 1)


TOP = Place()


class AttributeRules:
    """The profile applied to one file; `report` counts what was done."""

    def __init__(
        self,
        policy: DeidentificationPolicy,
        pseudonyms: Pseudonyms,
        patient: str,
        sop_class: str | None,
        names: frozenset[str],
    ) -> None:
        self.report = Report()
        self._policy, self._pseudonyms, self._names = policy, pseudonyms, names
        self._options = policy.options
        self._days = pseudonyms.days_back(patient)
        self._sop_class = sop_class
        self._by_action: dict[Action, Callable[[DataElement, Place], DataElement | None]] = {
            Action.REMOVE: self._removed,
            Action.EMPTY: self._emptied,
            Action.DUMMY: self._dummy,
            Action.KEEP: self._by_option,
            Action.CLEAN: self._cleaned,
            Action.NEW_UID: self._new_uid,
        }

    def copy_of(self, source: Dataset, place: Place = TOP) -> Dataset:
        """Return a dataset, or a sequence's item, with every attribute treated."""
        copy = Dataset()
        place = replace(place, coded=_has_standard_code(source))
        for tag in sorted(source.keys()):
            element = self._treated(source, Tag(tag), place)
            if element is not None:
                copy[element.tag] = element
        return copy

    def _treated(self, source: Dataset, tag: BaseTag, place: Place) -> DataElement | None:
        try:
            fate = self._at_once(source, tag)
            element = source[tag] if fate is None else None
        except Exception:  # what a damaged value raises is the library's choice
            fate, element = Fate.UNREADABLE, None
        if fate is not None or element is None:
            self.report.note(tag, fate or Fate.UNREADABLE)
            return None
        if element.VR == "SQ" and place.depth >= MAX_DEPTH:
            self._gone(element, Fate.UNREADABLE)
            return None
        return self._private(element, place) if tag.is_private else self._by_rule(element, place)

    def _at_once(self, source: Dataset, tag: BaseTag) -> Fate | None:
        """Return the fate of what goes whatever it holds, or None."""
        if tag.is_private:
            return None if self._is_safe_private(source, tag) else Fate.REMOVED_PRIVATE
        if tag.group >> 8 in (0x50, 0x60):
            return Fate.REMOVED_GRAPHICS
        if tag.group < 8 or tag.element == 0 or not dictionary_has_tag(tag):
            return Fate.REMOVED_UNKNOWN
        return None

    def _is_safe_private(self, source: Dataset, tag: BaseTag) -> bool:
        if Option.SAFE_PRIVATE not in self._options or tag.element < 0x10:
            return False
        if not tag.is_private_creator:
            return self._allows(source, Tag(tag.group, tag.element >> 8), tag)
        block = range(tag.element << 8, (tag.element + 1) << 8)
        inside = (Tag(t) for t in source.keys())  # noqa: SIM118 - the values of a dataset are its elements
        return any(self._allows(source, tag, t) for t in inside if t.group == tag.group and t.element in block)

    def _allows(self, source: Dataset, creator: BaseTag, tag: BaseTag) -> bool:
        element = source.get(creator)
        return element is not None and self._policy.allows_private(str(element.value).strip(), tag)

    def _private(self, element: DataElement, place: Place) -> DataElement | None:
        if element.VR == "SQ":
            return self._nested(element, Fate.SAFE_PRIVATE, place)
        if self._repeats(element):
            self._gone(element, Fate.REPEATED)
            return None
        return self._told(element, Fate.SAFE_PRIVATE, element.value)

    def _by_rule(self, element: DataElement, place: Place) -> DataElement | None:
        keyword = dictionary_keyword(element.tag)
        if keyword in CLAIMS:
            return None
        if keyword in ("PatientID", "PatientName") and place.depth == 0:
            self.report.note(element.tag, Fate.CODE)  # the caller writes the code
            return None
        row = row_of(element.tag)
        if row is None:
            return self._unlisted(element, keyword, place)
        action = row.action(self._options, self._type(keyword, place))
        if action is Action.CLEAN and not _can_be_cleaned(element):
            action = row.basic_action(self._type(keyword, place))
        return self._by_action[action](element, place)

    def _type(self, keyword: str, place: Place) -> str | None:
        return type_of(self._sop_class, keyword) if place.depth == 0 else None

    def _unlisted(self, element: DataElement, keyword: str, place: Place) -> DataElement | None:
        forms = {element.VR, dictionary_VR(element.tag)}
        if "SQ" in forms:
            return self._nested(element, Fate.KEPT, place)
        if "UI" in forms:
            meaning = keyword in MEANINGS or keyword.endswith(("SOPClassUID", "TransferSyntaxUID"))
            return self._told(element, Fate.KEPT, element.value) if meaning else self._new_uid(element, place)
        if forms & TELLING or keyword in BEYOND:
            self._gone(element, Fate.REMOVED_BEYOND)
            return None
        if CODED in forms:
            return self._coded(element, Fate.KEPT)
        if not forms & SHORT_TEXT:
            is_number = bool(forms & NUMBERS) and any(is_long_number(t, self._names) for t in _texts_of(element))
            return self._told(element, Fate.REPEATED if is_number else Fate.KEPT, "" if is_number else element.value)
        if self._repeats(element):
            return self._told(element, Fate.REPEATED, "")
        is_code = keyword in CODES and place.coded
        if place.cleaned and not is_code:
            return self._words(element)
        return self._told(element, Fate.KEPT if is_code else Fate.FREE_TEXT, element.value)

    def _removed(self, element: DataElement, _place: Place) -> None:
        self.report.note(element.tag, Fate.REMOVED)

    def _emptied(self, element: DataElement, _place: Place) -> DataElement | None:
        return self._told(element, Fate.EMPTIED, Sequence() if _is_sequence(element) else "")

    def _dummy(self, element: DataElement, place: Place) -> DataElement | None:
        if dictionary_VR(element.tag) == "UI":
            return self._new_uid(element, place)
        self.report.note(element.tag, Fate.DUMMY)
        return self._dummy_of(element, place)

    def _dummy_of(self, element: DataElement, place: Place) -> DataElement | None:
        """Return an element of the same form that holds nothing of the original; of a sequence, one such item."""
        form = dictionary_VR(element.tag)
        if form == "UI":
            return self._new_uid(element, place)
        if form != "SQ":
            return DataElement(element.tag, form, DUMMIES[form])
        item = Dataset()
        first = element.value[0] if _is_sequence(element) and len(element.value) else Dataset()
        for tag in first.keys() if place.depth < MAX_DEPTH else ():
            if dictionary_has_tag(tag) and Tag(tag).element and not Tag(tag).is_private:
                inner = self._dummy_of(first[tag], place.inside)
                if inner is not None:
                    item[inner.tag] = inner
        return DataElement(element.tag, "SQ", Sequence([item]))

    def _by_option(self, element: DataElement, place: Place) -> DataElement | None:
        if _is_sequence(element):
            return self._nested(element, Fate.OPTION, place)
        if dictionary_VR(element.tag) == "AS":
            age = capped_age(str(element.value or ""))
            if age is None:
                self._gone(element, Fate.UNREADABLE)
                return None
            return self._told(element, Fate.CAPPED, age)
        if dictionary_VR(element.tag) == CODED:
            return self._coded(element, Fate.OPTION)
        if dictionary_VR(element.tag) in TEXT and self._repeats(element):
            return self._told(element, Fate.REPEATED, "")
        return self._told(element, Fate.OPTION, element.value)

    def _coded(self, element: DataElement, fate: Fate) -> DataElement:
        """Keep coded values without those that repeat a name: programs write what they like, ImageType above all."""
        texts = _texts_of(element)
        kept = ["" if repeats(text, self._names) and not is_of_terms(text) else text for text in texts]
        if kept != texts:
            return self._told(element, Fate.REPEATED, kept)
        is_own = element.keyword == "ImageType" and not all(map(is_of_terms, texts[OWN_VALUES:]))
        return self._told(element, Fate.FREE_TEXT if is_own else fate, element.value)

    def _cleaned(self, element: DataElement, place: Place) -> DataElement | None:
        form = dictionary_VR(element.tag)
        if form == "SQ":
            return self._nested(element, Fate.CLEANED, replace(place, cleaned=True))
        if form in ("DA", "DT"):
            moved = [moved_date(text, self._days) for text in _texts_of(element)]
            return self._told(element, Fate.MOVED, moved)
        if form == "TM":
            return self._told(element, Fate.TIME, element.value)
        if element.keyword == "TimezoneOffsetFromUTC":
            return self._told(element, Fate.TIME, element.value)
        return self._words(element)

    def _words(self, element: DataElement) -> DataElement:
        words = [safe_words(text, self._policy.words) for text in _texts_of(element)]
        words = ["" if repeats(text, self._names) else text for text in words]
        return self._told(element, Fate.CLEANED, words)

    def _new_uid(self, element: DataElement, place: Place) -> DataElement | None:
        if _is_sequence(element):  # X/Z/U*: what the sequence points to is renamed like everything else
            return self._nested(element, Fate.KEPT, place)
        uids = [self._pseudonyms.uid(text) if text else "" for text in _texts_of(element)]
        return self._told(element, Fate.NEW_UID, uids)

    def _nested(self, element: DataElement, fate: Fate, place: Place) -> DataElement | None:
        if not _is_sequence(element):
            self._gone(element, Fate.UNREADABLE)
            return None
        return self._told(element, fate, Sequence(self.copy_of(item, place.inside) for item in element.value))

    def _repeats(self, element: DataElement) -> bool:
        return any(repeats(text, self._names) for text in _texts_of(element))

    def _gone(self, element: DataElement, fate: Fate) -> None:
        self.report.note(element.tag, fate)

    def _told(self, element: DataElement, fate: Fate, value: Any) -> DataElement:
        """Count what was done to an element and return it with its new value."""
        self.report.note(element.tag, fate)
        if isinstance(value, list):
            value = "" if not value else value[0] if len(value) == 1 else value
        copy = DataElement(element.tag, element.VR, value, already_converted=True)
        copy.is_undefined_length = element.is_undefined_length
        return copy


def _has_standard_code(item: Dataset) -> bool:
    return str(first_value(item, "CodingSchemeDesignator") or "").strip() in STANDARD_SCHEMES


def _is_sequence(element: DataElement) -> bool:
    return bool(element.VR == "SQ" and isinstance(element.value, Sequence))


def _can_be_cleaned(element: DataElement) -> bool:
    form = dictionary_VR(element.tag)
    if element.keyword == "TimezoneOffsetFromUTC":
        return TIMEZONE.fullmatch(str(element.value or "")) is not None
    if form in ("DA", "DT"):
        return all(moved_date(text, 0) is not None for text in _texts_of(element))
    if form == "TM":
        return all(TIME.fullmatch(text.strip()) for text in _texts_of(element))
    return form == "SQ" or form in TEXT


def _texts_of(element: DataElement) -> list[str]:
    """Return an element's values as text: none if it is empty, one for each of several."""
    value = element.value
    if value is None or value == "" or isinstance(value, bytes):
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str) and element.VM > 1
    return [str(part) for part in (value if several else [value])]
