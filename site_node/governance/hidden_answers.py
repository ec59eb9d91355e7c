"""Answers that leave hidden: an update's integers or held-out counts under masks, or an update as ciphertexts.

The rounds themselves are `masking.py` and `decrypting.py`; here a candidate that was checked becomes what the hub may
see of it, once the peers' part of the round has come.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protocol.errors import ProtocolError
from protocol.homomorphic.vector_form import form_of
from protocol.message import Message
from protocol.messages import RoundTask, TaskKind, UpdateNotice
from protocol.secure_aggregation.histograms import SplitHistograms, masked_words
from protocol.secure_aggregation.vector import VectorTerms
from protocol.secure_messages import MaskedHistograms
from protocol.study import StudySpec
from site_node.durable import remove
from site_node.errors import GateError
from site_node.governance import masking
from site_node.governance.context import GateContext
from site_node.governance.decrypting import is_encrypted
from site_node.governance.encrypted_output import write_encrypted
from site_node.governance.masked_output import write_masked
from site_node.governance.masking_records import helped_to_open
from site_node.governance.records import StudyRecord, TaskRecord, study_record

REMEDY = "Nothing left. Ask the hub's operator."


@dataclass(frozen=True)
class Hidden:
    """A payload as it may leave: digest and size of its file, how it was hidden, and under which key if encrypted."""

    digest: str
    size: int
    step: Literal["masked", "encrypted"]
    key_id: str | None = None


def begin(context: GateContext, task: RoundTask) -> None:
    """Begin the masked round of a task whose answer leaves hidden. Call within the transaction that accepts it."""
    known = study_record(context.database, task.study_digest)
    if known is not None and masking.is_masked(task, known.study):
        masking.begin(context, task)


def is_awaited(context: GateContext, task: RoundTask) -> bool:
    """Tell whether the answer to a task waits for what the peers send.

    Raises: GateError if the round is over, so that nothing can come any more.
    """
    known = study_record(context.database, task.study_digest)
    if known is None or not masking.is_masked(task, known.study):
        return False
    try:
        return not masking.is_delivered(context, task)
    except ProtocolError as error:
        raise GateError(str(error), REMEDY) from error


def is_hidden(message: Message) -> bool:
    """Tell whether a message is the hidden answer of a round."""
    masked = isinstance(message, UpdateNotice) and not {"masked", "encrypted"}.isdisjoint(message.steps)
    return masked or isinstance(message, MaskedHistograms)


def hide(context: GateContext, known: StudyRecord, task: RoundTask, plain: Path, terms: VectorTerms) -> Hidden:
    """Mask or encrypt the integers in a file, as the study says, and take the file away.

    Raises: GateError if the round gives no masks or key.
    """
    hide_one = _encrypted if is_encrypted(known.study) else _masked
    try:
        hidden = hide_one(context, known, task, plain, terms)
    except ProtocolError as error:
        raise GateError(str(error), REMEDY) from error
    remove(plain)
    context.checkpoint(f"vector {hidden.step}")
    return hidden


def masked_histograms(
    context: GateContext, record: TaskRecord, histograms: SplitHistograms, study: StudySpec
) -> MaskedHistograms:
    """Return the message with a site's held-out counts under masks.

    Raises: GateError if the round gives no masks, or the counts are not of the study.
    """
    task = record.task
    try:
        words = masked_words(study, histograms, masking.delivered_masks(context, task))
        roster_digest = masking.roster_digest_of(context, task)
    except ProtocolError as error:
        raise GateError(str(error), "Nothing left. See the worker's log.") from error
    context.checkpoint("vector masked")
    return MaskedHistograms(
        site=context.settings.name,
        task_id=task.task_id,
        task_digest=record.digest,
        study_digest=task.study_digest,
        round=task.round,
        roster_digest=roster_digest,
        noise_epsilon=study.evaluation.noise_epsilon,
        words=words,
    )


def _masked(context: GateContext, known: StudyRecord, task: RoundTask, plain: Path, terms: VectorTerms) -> Hidden:
    masks, weight = masking.delivered_masks(context, task), terms.weight_of(known.training_patients)
    digest, size = write_masked(context.paths, plain, terms, weight, masks)
    return Hidden(digest, size, "masked")


def _encrypted(context: GateContext, known: StudyRecord, task: RoundTask, plain: Path, terms: VectorTerms) -> Hidden:
    cipher, weight = masking.delivered_cipher(context, task), terms.weight_of(known.training_patients)
    form = form_of(terms, known.digest, task.round, cipher.key_id)
    digest, size = write_encrypted(context.paths, plain, terms, weight, form, cipher)
    return Hidden(digest, size, "encrypted", cipher.key_id)


def is_difference(database: sqlite3.Connection, task: RoundTask, study: StudySpec) -> bool:
    """Tell whether an answer, less what an opened sum over the same weights held, could be one site's un-noised part.

    With noise each sum is charged for itself, and a difference tells no more than both.
    """
    if not masking.is_masked(task, study):
        return False
    terms = study.evaluation.noise_epsilon if task.kind is TaskKind.EVALUATE else study.privacy.epsilon
    is_encrypted = task.kind is TaskKind.TRAIN and study.secure_aggregation.method == "homomorphic"
    return terms is None and helped_to_open(database, task, masking.masked_kind(task), is_encrypted=is_encrypted)
