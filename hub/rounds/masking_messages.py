"""What sites say in a masked round: each message once, in its phase, of the round's own members.

The hub cannot check what is sealed or masked; it checks form, phase and membership, so that one site's mistake is told
to that site and does not cost the others their round.
"""

from collections.abc import Callable
from typing import Any

from hub.rounds.asking import Turn, own_task, settle, turn_on
from hub.rounds.coordinator import advance
from hub.rounds.masked_sum import names_in
from hub.rounds.transitions import TaskEvent, is_waiting
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.masking_stores import masking_message, masking_messages, masking_round
from hub.storage.tables import MaskingMessageRow, MaskingRoundRow, TaskRow
from hub.studies.specification import stored_study
from protocol.digest import digest_of_bytes
from protocol.message import Message
from protocol.messages import expect
from protocol.secure_aggregation.histograms import vector_length
from protocol.secure_aggregation.key_agreement import is_usable
from protocol.secure_aggregation.phases import HubPhase
from protocol.secure_messages import (
    WORDS_OF_A_PIECE,
    MaskedHistograms,
    MaskingKeys,
    MaskingReveal,
    MaskingShares,
    SurvivorsSeen,
    digest_of_names,
)
from protocol.signing import read_unverified

LATE = "The round went on without this message."
ANOTHER = "Another message was taken in this phase; one is taken of each site."
STRANGE = "The message is not of this round's members and roster."
_PHASES = list(HubPhase)


def receive_masking(services: Services, site: str, message: Any, envelope: bytes) -> str | None:
    """Take a message of a masked round; return why it was not taken, or None. Repeating it changes nothing."""
    kind, phase, problem_of = _KINDS[type(message)]
    with services.transaction() as session:
        task = own_task(session, site, message.task_id)
        masked = masking_round(session, task.study, task.round, message.task_kind)
        of = (message.study_digest, message.round, message.task_kind)
        if masked is None or of != (task.study, task.round, task.kind):
            return STRANGE
        known = masking_message(session, masked, site, kind)
        if known is not None:
            return None if read_unverified(known.envelope) == read_unverified(envelope) else ANOTHER
        needs_task = phase in (HubPhase.KEYS, HubPhase.SHARES, HubPhase.UPLOADS)
        if needs_task and not is_waiting(task.state):
            return LATE
        if masked.phase != phase:
            return _out_of_phase(masked, phase, site)
        problem, turn = problem_of(session, masked, message), turn_on(session, services, task.study)
        if problem is not None:
            return problem if phase is not HubPhase.UPLOADS else _refused(turn, task, problem)
        row = MaskingMessageRow(
            study=task.study,
            round=task.round,
            task_kind=masked.task_kind,
            site=site,
            kind=kind,
            envelope=envelope,
            received_at=turn.now,
        )
        session.add(row)
        round_stores.count_bytes(session, task.task_id, up=len(envelope))
        digest = digest_of_bytes(read_unverified(envelope))
        turn.audit(f"site:{site}", f"masking.{kind}", task.task_id, {"message": digest})
        if phase is HubPhase.UPLOADS:
            settle(turn, task, TaskEvent.ANSWERED)
        advance(session, services, task.study)
    return None


def _refused(turn: Turn, task: TaskRow, problem: str) -> str:
    # A vector is the answer to its task: a site whose vector does not fit is not waited for.
    settle(turn, task, TaskEvent.REFUSED, problem, actor="hub")
    advance(turn.session, turn.services, task.study)
    return problem


def _out_of_phase(masked: MaskingRoundRow, phase: HubPhase, site: str) -> str | None:
    # What the threshold has made superfluous is no fault of a survivor that answered a little later.
    passed = _PHASES.index(HubPhase(masked.phase)) > _PHASES.index(phase) and masked.phase != HubPhase.FAILED
    superfluous = phase in (HubPhase.SEEN, HubPhase.REVEALS) and site in names_in(masked.survivors)
    return None if passed and superfluous else LATE


def _keys_problem(session: Session, masked: MaskingRoundRow, keys: MaskingKeys) -> str | None:
    found = masking_messages(session, masked, "keys")
    others = [expect(read_unverified(row.envelope), MaskingKeys) for row in found]
    used = {key for other in others for key in (other.channel_key, other.mask_key)}
    if not is_usable(keys.channel_key) or not is_usable(keys.mask_key):
        return "A key of the message is none. The site's gate makes new ones for its next task."
    if keys.channel_key == keys.mask_key or used & {keys.channel_key, keys.mask_key}:
        return "Each key of a round is used once. The site's gate makes new ones for its next task."
    return None


def _shares_problem(session: Session, masked: MaskingRoundRow, shares: MaskingShares) -> str | None:
    others = set(names_in(masked.roster)) - {shares.site}
    return None if shares.roster_digest == masked.roster_digest and set(shares.sealed) == others else STRANGE


def _vector_problem(session: Session, masked: MaskingRoundRow, vector: MaskedHistograms) -> str | None:
    study = stored_study(stores.study(session, masked.study).specification)
    task = round_stores.task(session, vector.task_id)
    same = vector.roster_digest == masked.roster_digest and vector.site in names_in(masked.members)
    if not same or task is None or vector.task_digest != task.digest:
        return STRANGE
    if vector.noise_epsilon != study.evaluation.noise_epsilon:
        return "The noise is not that of the task."
    fits = len(vector.words) * WORDS_OF_A_PIECE == vector_length(study)
    return None if fits else "The vector is not of the length of the study's held-out counts."


def _seen_problem(session: Session, masked: MaskingRoundRow, seen: SurvivorsSeen) -> str | None:
    members, survivors = names_in(masked.members), names_in(masked.survivors)
    lists = (seen.roster_digest, seen.members_digest, seen.survivors_digest)
    same = lists == (masked.roster_digest, digest_of_names(members), digest_of_names(survivors))
    return None if same and seen.site in survivors else STRANGE


def _reveal_problem(session: Session, masked: MaskingRoundRow, reveal: MaskingReveal) -> str | None:
    members, survivors = set(names_in(masked.members)), set(names_in(masked.survivors))
    fits = set(reveal.seed_shares) <= survivors and set(reveal.key_shares) <= members - survivors
    same = reveal.roster_digest == masked.roster_digest and reveal.site in survivors
    return None if fits and same else STRANGE


_Rule = Callable[[Session, MaskingRoundRow, Any], str | None]
_KINDS: dict[type[Message], tuple[str, HubPhase, _Rule]] = {
    MaskingKeys: ("keys", HubPhase.KEYS, _keys_problem),
    MaskingShares: ("shares", HubPhase.SHARES, _shares_problem),
    MaskedHistograms: ("vector", HubPhase.UPLOADS, _vector_problem),
    SurvivorsSeen: ("seen", HubPhase.SEEN, _seen_problem),
    MaskingReveal: ("reveal", HubPhase.REVEALS, _reveal_problem),
}
MASKING_KINDS = tuple(_KINDS)
