"""Which patients a study touches, told between worker and gate by pseudonym; never beyond this site.

    orders/<task_id>.spent                  gate to worker: whose lifetime budget does not cover the study
    handover/cohorts/<study hex>.members    worker to gate: who is in the frozen cohort, and who was left out of it

A pseudonym is HMAC-SHA256 of the patient id under a key derived from the site's noise key, which the gate cannot read:
the gate can tell that two studies touch the same patient, and not which patient it is. It is the same in every study.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from protocol.digest import Digest, canonical_json, digest_of, digest_of_bytes, hex_of, parse_json
from protocol.errors import DigestError
from protocol.study_parts import HeldOutSplit, Split
from site_node.durable import read_up_to, write_durably
from site_node.errors import GateError, OrderError
from site_node.settings import SitePaths

PSEUDONYM_DIGITS = 32
MAX_FILE_BYTES = 256 << 20
MEMBERS_SUFFIX = ".members"
COHORT_SUFFIX, VALUES_SUFFIX = ".json", ".npy"  # of a frozen cohort (`training/frozen_cohort.py`)
SPENT_SUFFIX = ".spent"
Pseudonym = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{PSEUDONYM_DIGITS}}}$")]


class SpentPatients(BaseModel):
    """Whom a study may not train on, and whom it may not judge on; `nobody_*`: no patient at all, listed or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: frozenset[Pseudonym] = frozenset()
    held_out: frozenset[Pseudonym] = frozenset()
    nobody_trains: bool = False
    nobody_judges: bool = False

    def excludes(self, pseudonym: str, split: Split) -> bool:
        """Tell whether a patient's budget does not cover the study."""
        if split == "train":
            return self.nobody_trains or pseudonym in self.training
        return self.nobody_judges or pseudonym in self.held_out

    def is_empty(self) -> bool:
        """Tell whether nobody is excluded."""
        return self == SpentPatients()

    def canonical_bytes(self) -> bytes:
        """Return the bytes that the order's digest is over."""
        return canonical_json({name: sorted(v) if isinstance(v, frozenset) else v for name, v in self})


class CohortMembers(BaseModel):
    """A cohort by pseudonym. `withheld`: could be afforded, and yet too few (or of one class) to train on.

    `validation` are those of `held_out` who are in that split; the others are in the test split.
    `merged` are all pseudonyms of each patient who has several; the first is the one that stands in the lists.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_digest: Digest
    training: list[Pseudonym] = []
    held_out: list[Pseudonym] = []
    validation: list[Pseudonym] = []
    withheld: list[Pseudonym] = []
    spent_training: list[Pseudonym] = []
    spent_held_out: list[Pseudonym] = []
    merged: list[list[Pseudonym]] = []

    @property
    def matching(self) -> list[Pseudonym]:
        """Return all who match the study as training patients, whether they train or not."""
        return [*self.training, *self.withheld, *self.spent_training]

    def held_out_in(self, split: HeldOutSplit) -> list[Pseudonym]:
        """Return the held-out patients of one split."""
        validation = set(self.validation)
        return [who for who in self.held_out if (who in validation) == (split == "validation")]

    def canonical_bytes(self) -> bytes:
        """Return the bytes that the figures' digest is over."""
        return canonical_json(self.model_dump(mode="json"))


Document = TypeVar("Document", SpentPatients, CohortMembers)


def pseudonym_key(noise_key: bytes) -> bytes:
    """Return the key of the ledger's pseudonyms."""
    return HKDF(SHA256(), 32, salt=None, info=b"wardround.ledger-pseudonym-key/1").derive(noise_key)


def ledger_pseudonym(patient_id: str, key: bytes) -> str:
    """Return a patient's name in the ledger."""
    return hmac.digest(key, patient_id.encode("utf-8"), hashlib.sha256).hex()[:PSEUDONYM_DIGITS]


def group_digest(pseudonyms: list[str]) -> str:
    """Return the digest by which the ledger commits to a group of patients."""
    return digest_of({"schema": "wardround.ledger-patients/1", "patients": sorted(pseudonyms)})


def members_path(paths: SitePaths, study_digest: str) -> Path:
    """Return where the members of a study's cohort lie."""
    return paths.cohorts / f"{hex_of(study_digest)}{MEMBERS_SUFFIX}"


def spent_path(paths: SitePaths, task_id: str) -> Path:
    """Return where the patients lie that an order leaves out."""
    return paths.orders / f"{task_id}{SPENT_SUFFIX}"


def write_members(paths: SitePaths, members: CohortMembers) -> str:
    """Hand a cohort's members over and return the digest that its figures name."""
    data = members.canonical_bytes()
    paths.cohorts.mkdir(parents=True, exist_ok=True)
    write_durably(members_path(paths, members.study_digest), data)
    return digest_of_bytes(data)


def read_members(paths: SitePaths, study_digest: str, digest: str | None) -> CohortMembers:
    """Return the members of a study's cohort.

    Raises: GateError if they are missing or not those that the figures name.
    """
    data = _bounded(members_path(paths, study_digest))
    members = None if data is None or digest_of_bytes(data) != digest else _parsed(data, CohortMembers)
    if members is None or members.study_digest != study_digest:
        raise GateError("The members of a cohort are missing or damaged.", "Are worker and gate of the same version?")
    return members


def write_spent(paths: SitePaths, task_id: str, spent: SpentPatients) -> str:
    """Write whom an order leaves out and return the digest that the order names."""
    data = spent.canonical_bytes()
    write_durably(spent_path(paths, task_id), data)
    return digest_of_bytes(data)


def read_spent(paths: SitePaths, task_id: str, digest: str | None) -> SpentPatients:
    """Return whom an order leaves out; nobody if it names no digest.

    Raises: OrderError if the file is missing or not the one that the order names.
    """
    if digest is None:
        return SpentPatients()
    data = _bounded(spent_path(paths, task_id))
    spent = None if data is None or digest_of_bytes(data) != digest else _parsed(data, SpentPatients)
    if spent is None:
        raise OrderError("The order's list of patients is missing or damaged.", "Restart the gate; it writes it again.")
    return spent


def _bounded(path: Path) -> bytes | None:
    data = read_up_to(path, MAX_FILE_BYTES)
    return None if data is None or len(data) > MAX_FILE_BYTES else data


def _parsed(data: bytes, kind: type[Document]) -> Document | None:
    try:
        return kind.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        return None
