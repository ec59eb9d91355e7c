"""Keyed pseudonyms: new UIDs, patient codes and a number of days for each patient. The key stays at this site.

Source: HMAC-SHA256 (RFC 2104) under keys derived by HKDF (RFC 5869); UIDs of the form 2.25.<UUID> (PS3.5 B.2), the UUID
of version 8 (RFC 9562).
Convention: the same key gives the same pseudonyms in every file and every run, so that references still resolve;
another key gives others. Without the key a pseudonym tells nothing, and two hospitals' pseudonyms do not match.

Each UID and code carries a keyed check by which its maker knows it again. So what was already made here is left as it
is, and a copy that comes back is not changed a second time.
"""

import hashlib
import hmac
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydicom.uid import UID

UID_ROOT = "2.25."
NAME_BYTES, CHECK_BYTES = 10, 5  # 80 bits against two originals with one name, 40 against a stranger taken for ours
CODE_PREFIX = "P-"
LEAST_DAYS, MOST_DAYS = 366, 3660
"""A patient's dates go back by a number of days in this range: never less than a year."""


class Pseudonyms:
    """The pseudonyms of one site; made from its key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._uids, self._patients, self._days = (_derived(key, use) for use in ("uid", "patient", "days"))

    def uid(self, original: str) -> str:
        """Return the UID that stands for another; UIDs that the standard itself registers, and ours, stay."""
        if UID(original).name != original or self.made_uid(original):
            return original
        return UID_ROOT + str(UUID(bytes=_as_uuid(_named(self._uids, original.encode("utf-8", "surrogateescape")))).int)

    def made_uid(self, uid: str) -> bool:
        """Tell whether this site made the UID."""
        number = uid.removeprefix(UID_ROOT)
        if number == uid or not number.isascii() or not number.isdigit() or len(number) > 39 or int(number) >> 128:
            return False
        value = int(number).to_bytes(16, "big")
        return hmac.compare_digest(_as_uuid(_checked(self._uids, _name_in(value))), value)

    def patient_code(self, patient_id: str) -> str:
        """Return the code that stands for a patient, in at most 32 letters; ours stays."""
        if self.made_code(patient_id):
            return patient_id
        return CODE_PREFIX + _named(self._patients, patient_id.encode("utf-8", "surrogateescape")).hex()

    def made_code(self, code: str) -> bool:
        """Tell whether this site made the patient code."""
        digits = code.removeprefix(CODE_PREFIX)
        if digits == code or len(digits) != 2 * (NAME_BYTES + CHECK_BYTES) or set(digits) - set("0123456789abcdef"):
            return False
        name = bytes.fromhex(digits)[:NAME_BYTES]
        return hmac.compare_digest(_checked(self._patients, name).hex(), digits)

    def days_back(self, patient_id: str) -> int:
        """Return by how many days a patient's dates go back; 0 for a patient code of ours: they went back already."""
        if self.made_code(patient_id):
            return 0
        number = int.from_bytes(hmac.digest(self._days, patient_id.encode("utf-8", "surrogateescape"), hashlib.sha256))
        return LEAST_DAYS + number % (MOST_DAYS - LEAST_DAYS + 1)

    def reference(self, text: str) -> str:
        """Return what stands for any other text, such as a file's path, in a journal that may leave."""
        return hmac.digest(self._patients, b"reference\0" + text.encode("utf-8", "surrogateescape"), "sha256").hex()[
            :32
        ]


def _derived(key: bytes, use: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=f"wardround.deidentification/1 {use}".encode()).derive(key)


def _named(key: bytes, original: bytes) -> bytes:
    return _checked(key, hmac.digest(key, b"name\0" + original, hashlib.sha256)[:NAME_BYTES])


def _checked(key: bytes, name: bytes) -> bytes:
    return name + hmac.digest(key, b"check\0" + name, hashlib.sha256)[:CHECK_BYTES]


def _as_uuid(content: bytes) -> bytes:
    """Spread 120 bits around the six fixed bits of a UUID of version 8."""
    value = int.from_bytes(content)
    high, middle, low = value >> 72, value >> 60 & 0xFFF, value & (1 << 60) - 1
    return (high << 80 | 8 << 76 | middle << 64 | 0b10 << 62 | low).to_bytes(16, "big")


def _name_in(uuid: bytes) -> bytes:
    value = int.from_bytes(uuid)
    content = (value >> 80) << 72 | (value >> 64 & 0xFFF) << 60 | value & (1 << 60) - 1
    return content.to_bytes(15, "big")[:NAME_BYTES]
