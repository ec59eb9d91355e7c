"""The names and numbers by which a header knows its patient, to find where other text repeats them."""

import re
from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset

LEAST_NAME, LEAST_NUMBER, LEAST_LONG_NUMBER = 3, 4, 5  # letters: shorter ones are words of every header
NUMBERS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "MedicalRecordLocator"),
    *("PatientTelephoneNumbers", "PatientBirthDate", "IssuerOfPatientID", "PatientAddress"),
)
DUMMY_NAMES = frozenset({"anonymized", "anonymised", "anonymous", "none", "unknown"})


def names_of(source: Dataset) -> frozenset[str]:
    """Return the parts of all persons' names and of the patient's numbers in a dataset, in small letters."""
    found = set(_words(_texts(source), LEAST_NAME)) | set(_words(_numbers(source), LEAST_NUMBER))
    return frozenset(found) - DUMMY_NAMES


def repeats(text: str, names: frozenset[str]) -> bool:
    """Tell whether a text holds one of the names as a word, or several words as one."""
    return not names.isdisjoint(_words([text], LEAST_NAME))


def is_long_number(text: str, names: frozenset[str]) -> bool:
    """Tell whether a text is one of the numbers as a whole: a series may be numbered like its patient."""
    whole = text.strip().casefold()
    return len(whole) >= LEAST_LONG_NUMBER and whole in names and any(letter.isdigit() for letter in whole)


def _words(texts: Iterable[str], least: int) -> Iterator[str]:
    for text in texts:
        whole = text.strip().casefold()
        for word in (whole, *re.split(r"[\W_]+", whole)):
            if len(word) >= least:
                yield word


def _texts(dataset: Dataset) -> Iterator[str]:
    for tag in dataset.keys():  # noqa: SIM118 - the values of a dataset are its elements
        try:
            element = dataset[tag]
        except Exception:  # noqa: S112 - what cannot be read cannot be repeated in the copy either
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR == "PN":
            yield str(element.value)


def _numbers(dataset: Dataset) -> Iterator[str]:
    for keyword in NUMBERS:
        try:
            value = dataset.get(keyword)
        except Exception:  # noqa: S112 - as above
            continue
        if value is not None:
            yield from (str(part) for part in (value if isinstance(value, (list, tuple)) else [value]))
