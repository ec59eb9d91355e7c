"""Homomorphic encryption as the coordinator of rounds sees it: the hub adds what it cannot read, two sites decrypt.

    TRAINING   keys, shares, uploads   as under masks (`masking.py`): what is sealed are parts of the round's key
    OPENING    seen                    as under masks: the threshold signs one list of survivors
               reveals                 the hub adds the ciphertexts, in its worker; then two survivors are asked to
                                       verify, add and decrypt. The round goes on once two have sent the same sum

A site that is asked and does not answer within the phase is made up for by all other survivors, asked once. Two
different sums fail the round: one of the two sites lies, and the hub cannot tell which.
"""

from collections import Counter
from collections.abc import Sequence

from hub.aggregation.ciphertexts import summed
from hub.aggregation.strategy import CountedUpdate
from hub.aggregation.unmasking import store_opened_mean
from hub.errors import AggregationError
from hub.mail import post
from hub.rounds.asking import Turn, cancel_waiting, record_tasks, turn_on
from hub.rounds.closing import Verdict
from hub.rounds.masked_sum import RESTORE, names_in, stored_masks
from hub.rounds.masking import MaskingMethod
from hub.rounds.terms import stored_task
from hub.rounds.transitions import RoundState, TaskState, is_waiting
from hub.rounds.worker_orders import order_work
from hub.services import Services
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import encrypted_sum
from hub.storage.round_stores import TaskStanding
from hub.storage.tables import EncryptedSumRow, MaskingRoundRow, RoundRow, TaskRow, UpdateRow
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic.vector_form import form_of
from protocol.homomorphic_messages import BlobReference, DecryptionRequest
from protocol.messages import ModelReference, TaskKind, UpdateNotice, expect
from protocol.secure_aggregation.phases import HubPhase
from protocol.secure_aggregation.vector import vector_terms
from protocol.signing import read_unverified
from protocol.study import StudySpec
from protocol.tensors import read_manifest

DECRYPTING_SITES = 2


class EncryptionMethod(MaskingMethod):
    """The method `homomorphic`; see `opening.OpeningMethod`. Its phases but the last are those of masking."""

    def verdict(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
        """Say whether the present phase waits, is over, or has failed."""
        masked = stored_masks(turn.session, row.study, row.number)
        if masked.phase == HubPhase.REVEALS:
            return _opening_verdict(turn, row, masked)
        verdict = super().verdict(turn, row, tasks)
        differ = masked.phase == HubPhase.UPLOADS and len(_keys(_updates(turn.session, row))) > 1
        return Verdict.FAIL if verdict is Verdict.CLOSE and differ else verdict

    def why(self, turn: Turn, row: RoundRow) -> str:
        """Say what was missing."""
        if len(_keys(_updates(turn.session, row))) > 1:
            return "The sites hold different keys: one of them contributed differently to others. Nothing was opened."
        if stored_masks(turn.session, row.study, row.number).phase != HubPhase.REVEALS:
            return super().why(turn, row)
        sums = _decrypted(turn.session, row)
        if len(set(sums.values())) > 1:
            return f"The sites {', '.join(sorted(sums))} decrypted different sums: one of them lies. None is used."
        return f"{len(sums)} sites decrypted the sum; {DECRYPTING_SITES} are needed."

    def step(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskRow]) -> bool:
        """Go on to the next phase, or ask more sites; True from uploads, and once two sites agree on the sum."""
        masked = stored_masks(turn.session, row.study, row.number)
        if masked.phase != HubPhase.REVEALS:
            done = super().step(turn, row, tasks)
            if masked.phase == HubPhase.REVEALS:
                order_work(turn.session, row.study, row.number)
            return done
        if _agreed(turn.session, row) is not None:
            return super().step(turn, row, tasks)
        masked.deadline_at = turn.now + turn.spec.secure_aggregation.phase_seconds
        if encrypted_sum(turn.session, row.study, row.number) is None:
            order_work(turn.session, row.study, row.number)
        else:
            _ask_to_decrypt(turn, row, names_in(masked.survivors))
        return False

    def end(self, turn: Turn, row: RoundRow) -> None:
        """Note that the sum stays closed, and tell the sites that were asked for it."""
        super().end(turn, row)
        cancel_waiting(turn, _decryptions(turn.session, row), "The round has ended.")

    def sum_of(self, services: Services, study: str, number: int) -> CountedUpdate:
        """Store the mean that the agreed sum stands for."""
        with services.reading() as session:
            row = round_stores.round_of(session, study, number)
            words, survivors = _agreed(session, row), _updates(session, row)
            spec, base = turn_on(session, services, study).spec, _base(session, row)
        if words is None:
            raise AggregationError("Fewer than two sites agree on a round's decrypted sum.", RESTORE)
        mean = store_opened_mean(spec, number, base.weights_digest, words, len(survivors), services.blobs)
        return CountedUpdate("sum", mean, 1.0, sites=len(survivors))

    def prepare(self, services: Services, study: str, number: int) -> bool:
        """Add the survivors' ciphertexts and ask two sites to decrypt; outside any transaction but the last step.

        Raises: AggregationError or ProtocolError if they cannot be added; the round then fails.
        """
        with services.reading() as session:
            row = round_stores.round_of(session, study, number)
            if not _awaits_its_sum(session, row):
                return False
            spec, updates, base = turn_on(session, services, study).spec, _updates(session, row), _base(session, row)
        form = _form_of(services, spec, row, updates, base)
        blobs = [update.blob for update in updates]
        added = services.blobs.put_stream(summed([services.blobs.path(blob) for blob in blobs], blobs, form))
        with services.transaction() as session:
            row = round_stores.round_of(session, study, number)
            if not _awaits_its_sum(session, row):
                return False
            size = services.blobs.size(added)
            session.add(EncryptedSumRow(study=study, round=number, sum_digest=added, sum_bytes=size))
            session.flush()
            turn = turn_on(session, services, study)
            turn.audit("hub", "encrypted.sum", f"{turn.study.name}.r{number}", {"study": study, "sum": added})
            _ask_to_decrypt(turn, row, [update.site for update in updates][:DECRYPTING_SITES])
        return True


def decryption_blobs(session: Session, task: TaskRow) -> set[str]:
    """Return the blobs that a site must read for a task to decrypt: the round's ciphertexts and their sum."""
    if task.kind != TaskKind.DECRYPT:
        return set()
    row = round_stores.round_of(session, task.study, task.round)
    added = encrypted_sum(session, task.study, task.round)
    blobs = {update.blob for update in _updates(session, row)}
    return blobs if added is None else blobs | {added.sum_digest}


def _opening_verdict(turn: Turn, row: RoundRow, masked: MaskingRoundRow) -> Verdict:
    if len(set(_decrypted(turn.session, row).values())) > 1:
        return Verdict.FAIL
    if _agreed(turn.session, row) is not None:
        return Verdict.CLOSE
    tasks, overdue = _decryptions(turn.session, row), turn.now >= masked.deadline_at
    if not tasks:
        return Verdict.CLOSE if overdue else Verdict.WAIT  # the worker may have been killed: it is asked again
    waiting = any(is_waiting(task.state) for task in tasks)
    all_asked = len(tasks) >= len(names_in(masked.survivors))
    if waiting and not overdue:
        return Verdict.WAIT
    return Verdict.FAIL if all_asked else Verdict.CLOSE


def _ask_to_decrypt(turn: Turn, row: RoundRow, sites: Sequence[str]) -> None:
    session, updates, base = turn.session, _updates(turn.session, row), _base(turn.session, row)
    masked, added = stored_masks(session, row.study, row.number), encrypted_sum(session, row.study, row.number)
    if added is None:
        raise AggregationError("The sum of a round's ciphertexts is missing.", RESTORE)
    asked = {task.site for task in _decryptions(session, row)}
    for task in record_tasks(turn, [site for site in sites if site not in asked], row.number, TaskKind.DECRYPT, base):
        request = DecryptionRequest(
            task_id=task.task_id,
            task_digest=task.digest,
            study_digest=row.study,
            round=row.number,
            roster_digest=masked.roster_digest or "",
            base=BlobReference(blob=base.weights_digest, bytes=base.weights_bytes),
            notices=[update.notice.decode() for update in updates],
            ciphertexts=[BlobReference(blob=u.blob, bytes=_notice(u).payload_bytes) for u in updates],
            sum=BlobReference(blob=added.sum_digest, bytes=added.sum_bytes),
        )
        post(session, turn.services, task.site, request)


def _form_of(
    services: Services, spec: StudySpec, row: RoundRow, updates: Sequence[UpdateRow], base: ModelReference
) -> CiphertextForm:
    (key_id,) = _keys(updates)
    manifest = read_manifest(services.blobs.path(base.weights_digest))
    return form_of(vector_terms(spec, manifest.parameters), row.study, row.number, key_id)


def _awaits_its_sum(session: Session, row: RoundRow) -> bool:
    phase = stored_masks(session, row.study, row.number).phase
    none_yet = encrypted_sum(session, row.study, row.number) is None
    return row.state == RoundState.OPENING and phase == HubPhase.REVEALS and none_yet


def _agreed(session: Session, row: RoundRow) -> str | None:
    """Return the blob of the sum that enough sites have sent alike."""
    counted = Counter(_decrypted(session, row).values()).most_common(1)
    return counted[0][0] if counted and counted[0][1] >= DECRYPTING_SITES else None


def _decrypted(session: Session, row: RoundRow) -> dict[str, str]:
    """Return the digests of the sums that sites have sent, by site."""
    found = {}
    for task in _decryptions(session, row):
        upload = round_stores.upload_of_task(session, task.task_id)
        if task.state == TaskState.ACCEPTED and upload is not None:
            found[task.site] = upload.payload_digest
    return found


def _decryptions(session: Session, row: RoundRow) -> Sequence[TaskRow]:
    return round_stores.tasks_of_round(session, row.study, row.number, TaskKind.DECRYPT)


def _updates(session: Session, row: RoundRow) -> Sequence[UpdateRow]:
    return round_stores.updates_of_round(session, row.study, row.number)


def _notice(update: UpdateRow) -> UpdateNotice:
    return expect(read_unverified(update.notice), UpdateNotice)


def _keys(updates: Sequence[UpdateRow]) -> set[str]:
    return {_notice(update).key_id or "" for update in updates}


def _base(session: Session, row: RoundRow) -> ModelReference:
    (first, *_) = round_stores.tasks_of_round(session, row.study, row.number, TaskKind.TRAIN)
    base = stored_task(first.document).base
    if base is None:
        raise AggregationError("A training task names no version.", RESTORE)
    return base
