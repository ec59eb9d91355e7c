"""Train, validation, test by patient, and patients' pseudonyms: both a keyed hash, stable for ever.

A patient's place on the unit interval is HMAC-SHA256 under the site's split key: [0, test) is test, then validation,
the rest train. It depends on nothing but the key and the patient id: adding patients moves nobody, and no study that
uses the same fractions trains on another's test patients. Without the key nobody can tell who was held out.
"""

import hashlib
import hmac
from collections.abc import Collection

from protocol.study_parts import Split, Splits

SPLIT_CONTEXT = b"wardround.split/1\0"
PSEUDONYM_CONTEXT = b"wardround.pseudonym/1\0"
INSTANCE_CONTEXT = b"wardround.instance/1\0"
PLACE_BYTES = 8
LEAST_TO_MOST_HELD_OUT: tuple[Split, ...] = ("train", "validation", "test")


def split_by_hash(patient_id: str, fractions: Splits, split_key: bytes) -> Split:
    """Return a patient's split by the keyed hash."""
    digest = _keyed(split_key, SPLIT_CONTEXT, patient_id)
    place = int.from_bytes(digest[:PLACE_BYTES], "big") / float(1 << 8 * PLACE_BYTES)
    if place < fractions.test:
        return "test"
    return "validation" if place < fractions.test + fractions.validation else "train"


def split_of(
    dealt_as: Collection[str], stated: Collection[Split | None], fractions: Splits, split_key: bytes
) -> Split | None:
    """Return a patient's split: the stated one, else by the hash; None if the site states several for this patient.

    Of a patient who has several ids, an earlier study may have trained on one and tested on another: whoever was ever
    trained on is not held out, and whoever chose a version does not test it.
    """
    named = {split for split in stated if split is not None}
    if len(named) > 1:
        return None
    if named:
        return named.pop()
    return min((split_by_hash(one, fractions, split_key) for one in dealt_as), key=LEAST_TO_MOST_HELD_OUT.index)


def pseudonym(patient_id: str, split_key: bytes) -> str:
    """Return the patient's name in the cohort's manifest: without the key it cannot be linked to the patient."""
    return _keyed(split_key, PSEUDONYM_CONTEXT, patient_id).hex()


def instance_digest(sop_instance_uid: str, split_key: bytes) -> str:
    """Return the instance's name in the cohort's manifest."""
    return _keyed(split_key, INSTANCE_CONTEXT, sop_instance_uid).hex()


def _keyed(key: bytes, context: bytes, text: str) -> bytes:
    return hmac.digest(key, context + text.encode("utf-8"), hashlib.sha256)
