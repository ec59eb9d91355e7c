"""What each job of the worker really used: a signed account that stays at this site (`wardround site receipts`).

A task never takes a part of its cohort by accident: an image that cannot be read any more fails the whole task, with a
reason that the hub is told too. Who is left out on purpose, because their budget is spent or they opted out, is counted
here, by reason, and nowhere else exactly: a number of training patients that left un-noised would be a release of its
own. What leaves with an update, if the study asks for it, is one noised number (`protocol/round_receipts.py`).

The signature is made with a key derived from the site's secret, so that a receipt cannot be changed unseen by whoever
does not hold it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest, canonical_json, parse_json
from protocol.errors import DigestError, ProtocolError
from protocol.signing import SigningKey, open_envelope, sign
from site_node.durable import finished_files, unfinished_beside
from site_node.rounded_counts import TEN, in_tens
from site_node.settings import SitePaths

SCHEMA = "wardround.work-receipt/1"
SUFFIX = ".json"
SHARES = ((0.9, "nine tenths or more"), (0.5, "half or more"), (0.0, "LESS THAN HALF"))
"""No word for the whole: the first patient who is left out would change it."""


class Skipped(StrEnum):
    """Why a patient, a file or a row was not used; the whole vocabulary."""

    BUDGET_SPENT = "budget-spent"
    OPTED_OUT = "opted-out"
    UNREADABLE = "unreadable"
    UNLABELLED = "unlabelled"
    CONFLICTS = "conflicts"
    ORPHANS = "orphans"
    LABELS = "labels"
    CRITERIA = "criteria"


SKIPPED_PEOPLE = {Skipped.BUDGET_SPENT: "with a spent budget", Skipped.OPTED_OUT: "who opted out"}
"""Patients who match and are left out whole; the other reasons are of files and rows, found when they were counted."""


class SkippedNumbers(BaseModel):
    """How many patients, and how many of their images, or files and rows, one reason kept out.

    Of a spent budget the images are not known: they were never read. The files and rows are the whole study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: int = 0
    images: int = 0


class WorkReceipt(BaseModel):
    """One job. `matched` patients were approved, `patients` of them used, with `images`; numbers never leave.

    `images_matched` are those of the patients who could have taken part when the cohort was counted.
    `reason` is set where the job failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: str = Field(default=SCHEMA, alias="schema")
    task_id: str
    study_digest: Digest
    study: str = ""
    round: int
    kind: str
    at: float
    seconds: float
    matched: int = 0
    patients: int = 0
    images: int = 0
    images_matched: int = 0
    skipped: dict[Skipped, SkippedNumbers] = {}
    failed: bool = False
    reason: str | None = None

    @property
    def share(self) -> str:
        """Return in words how much of the approved cohort was used; empty where none is needed."""
        if self.failed or not self.matched:
            return ""
        part = self.patients / self.matched
        return next(word for least, word in SHARES if part >= least)


@dataclass(frozen=True)
class KeptReceipt:
    """A receipt as it lies there; None with a signature that does not fit, or no receipt at all."""

    task_id: str
    receipt: WorkReceipt | None


def write_receipt(paths: SitePaths, receipt: WorkReceipt, noise_key: bytes) -> None:
    """Keep a receipt, signed; that of an earlier attempt of the same task is replaced. Whole, and not synced."""
    content = receipt.model_dump(mode="json", by_alias=True)
    envelope = sign(canonical_json(content), _key(noise_key)).decode("ascii")
    path = paths.worker_receipts / f"{receipt.task_id}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(path)
    unfinished.write_bytes(canonical_json({**content, "envelope": envelope}))
    unfinished.replace(path)


def kept_receipts(paths: SitePaths, noise_key: bytes) -> Iterator[KeptReceipt]:
    """Yield the receipts that lie there, oldest first, each checked."""
    found = [
        KeptReceipt(path.stem, _checked(path.read_bytes(), noise_key))
        for path in finished_files(paths.worker_receipts, SUFFIX)
    ]
    yield from sorted(found, key=lambda kept: (kept.receipt.at if kept.receipt else 0.0, kept.task_id))


def receipt_as_json(kept: KeptReceipt, least: int) -> dict[str, Any]:
    """Return a receipt as plain data, its numbers in tens, null where hidden.

    All are hidden, and the word with them, where fewer patients than the least were used; what was used also where
    fewer were left out, and where nobody was: two rounds would tell who is the first.
    """
    receipt = kept.receipt
    if receipt is None:
        return {"task_id": kept.task_id, "signed": False}
    is_many = receipt.patients >= max(least, TEN)
    tells_used = is_many and receipt.matched - receipt.patients >= max(least, TEN)
    numbers = {
        "matched": in_tens(receipt.matched, least) if is_many else None,
        "patients": in_tens(receipt.patients, least) if tells_used else None,
        "images": in_tens(receipt.images, least) if tells_used else None,
        "images_matched": in_tens(receipt.images_matched, least) if is_many else None,
        "skipped": _skipped_in_tens(receipt, least) if is_many else {},
    }
    return {
        **{"task_id": receipt.task_id, "signed": True, "study_digest": receipt.study_digest, "study": receipt.study},
        **{"round": receipt.round, "kind": receipt.kind, "at": receipt.at, "seconds": receipt.seconds},
        **{"failed": receipt.failed, "reason": receipt.reason, "share": receipt.share if is_many else "", **numbers},
    }


def _skipped_in_tens(receipt: WorkReceipt, least: int) -> dict[str, dict[str, int | None]]:
    """Return the reasons that kept many out; the images of patients only where those are many."""
    found = {}
    for reason, numbers in receipt.skipped.items():
        patients, images = in_tens(numbers.patients, least), in_tens(numbers.images, least)
        shown = images if reason not in SKIPPED_PEOPLE or patients is not None else None
        if patients is not None or shown is not None:
            found[reason.value] = {"patients": patients, "images": shown}
    return found


def _checked(data: bytes, noise_key: bytes) -> WorkReceipt | None:
    try:
        document = parse_json(data)
        envelope = document.pop("envelope").encode("ascii")
        payload = open_envelope(envelope, _key(noise_key).public)
        return WorkReceipt.model_validate(document) if canonical_json(document) == payload else None
    except (AttributeError, DigestError, KeyError, ProtocolError, TypeError, UnicodeError, ValidationError):
        return None


def _key(noise_key: bytes) -> SigningKey:
    derived = HKDF(SHA256(), 32, salt=None, info=b"wardround.work-receipt-key/1").derive(noise_key)
    return SigningKey.from_seed(derived)
