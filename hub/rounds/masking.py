"""The hub's side of a masked round: it collects and hands on, learns one sum, and can do nothing else.

    TRAINING   keys     -> MaskingRoster to all whose keys came
               shares   -> MaskingDelivery to all whose shares came; masks are made among these
               uploads  -> the round's own rule, and at least the threshold
    OPENING    seen     -> MaskingProof to all survivors, once the threshold has signed the same list
               reveals  -> the sum can be opened

A member that is lost in a phase is left out or, after the shares, made up for by the others. Below the threshold the
round fails and stays closed. The tables of phases and their rule are in `protocol/secure_aggregation/phases.py`.
"""

import json
from collections.abc import Sequence

from hub.aggregation.strategy import CountedUpdate
from hub.aggregation.unmasking import store_mean
from hub.mail import post_to_all
from hub.rounds.asking import Turn, cancel_waiting
from hub.rounds.closing import Verdict, needed_updates
from hub.rounds.masked_sum import names_in, posted_roster, revealed_opening, stored_masks, stored_sum
from hub.rounds.transitions import TaskState, is_waiting
from hub.services import Services
from hub.storage import round_stores
from hub.storage.masking_stores import masking_messages, masking_round, who_has_spoken
from hub.storage.round_stores import TaskStanding
from hub.storage.tables import MaskingRoundRow, RoundRow, TaskRow
from protocol.errors import MaskingError
from protocol.message import Message
from protocol.messages import expect
from protocol.secure_aggregation.masking import opened_masks
from protocol.secure_aggregation.phases import (
    CLOSED_BY_THE_THRESHOLD,
    NEXT_HUB_PHASE,
    HubPhase,
    PhaseStanding,
    phase_verdict,
)
from protocol.secure_aggregation.roster import FEWEST_MEMBERS, roster_of, threshold_of
from protocol.secure_messages import (
    MaskedKind,
    MaskingDelivery,
    MaskingKeys,
    MaskingProof,
    MaskingRoster,
    MaskingShares,
    MaskingSurvivors,
)
from protocol.shared_noise import fewest_survivors
from protocol.signing import read_unverified

VERDICTS = {"wait": Verdict.WAIT, "close": Verdict.CLOSE, "fail": Verdict.FAIL}
SPOKEN_IN = {
    HubPhase.KEYS: "keys",
    HubPhase.SHARES: "shares",
    HubPhase.SEEN: "seen",
    HubPhase.REVEALS: "reveal",
}
MISSED = {
    "keys": "sent masking keys",
    "shares": "sent shares of their masks",
    "uploads": "sent a masked vector",
    "seen": "signed the list of survivors",
    "reveals": "revealed their shares",
}
SILENT = "No answer in the round's phase of {}; its masks are made without this site."


class MaskingMethod:
    """Masking as the coordinator of rounds sees it; see `opening.OpeningMethod`."""

    def open(self, turn: Turn, row: RoundRow, asked: Sequence[str]) -> None:
        """Begin to wait for the asked sites' keys."""
        open_masks(turn, row, "train", asked)

    def verdict(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
        """Say whether the present phase waits, is over, or has failed."""
        masked = stored_masks(turn.session, row.study, row.number)
        phase = HubPhase(masked.phase)
        if phase is HubPhase.UPLOADS:
            return _uploads_verdict(turn, row, masked, tasks)
        if phase not in SPOKEN_IN:
            return Verdict.WAIT
        return spoken_verdict(turn, masked, tasks)

    def why(self, turn: Turn, row: RoundRow) -> str:
        """Say how many sites were missing in which phase."""
        here = len(round_stores.updates_of_round(turn.session, row.study, row.number))
        return what_was_missing(turn, stored_masks(turn.session, row.study, row.number), here)

    def step(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskRow]) -> bool:
        """Go on to the next phase; True from uploads and from reveals."""
        return go_on(turn, stored_masks(turn.session, row.study, row.number), tasks)

    def begin(self, turn: Turn, row: RoundRow) -> None:
        """Fix the survivors, the sites whose vectors were accepted, and tell them."""
        updates = round_stores.updates_of_round(turn.session, row.study, row.number)
        fix_survivors(turn, stored_masks(turn.session, row.study, row.number), [update.site for update in updates])

    def end(self, turn: Turn, row: RoundRow) -> None:
        """Note that the sum stays closed."""
        end_masks(turn, row, "train")

    def prepare(self, services: Services, study: str, number: int) -> bool:
        """Do nothing: the survivors need no work of the hub's."""
        return False

    def sum_of(self, services: Services, study: str, number: int) -> CountedUpdate:
        """Take the masks off the sum of the survivors' vectors and store the weighted mean."""
        with services.reading() as session:
            masked_sum = stored_sum(session, services, study, number)
        mean = store_mean(masked_sum, services.blobs)
        return CountedUpdate("sum", mean, 1.0, sites=len(masked_sum.blobs))


def open_masks(turn: Turn, row: RoundRow, task_kind: MaskedKind, asked: Sequence[str]) -> None:
    """Begin to wait for the keys of the sites that were given a task."""
    turn.session.add(
        MaskingRoundRow(
            study=row.study,
            round=row.number,
            task_kind=task_kind,
            phase=HubPhase.KEYS.value,
            deadline_at=turn.now + turn.spec.secure_aggregation.phase_seconds,
            asked=json.dumps(sorted(asked)),
            roster="[]",
            members="[]",
            survivors="[]",
        )
    )
    turn.session.flush()


def end_masks(turn: Turn, row: RoundRow, task_kind: MaskedKind) -> None:
    """Note that what is under a round's masks stays closed, if it was not opened."""
    masked = masking_round(turn.session, row.study, row.number, task_kind)
    if masked is not None and masked.phase != HubPhase.OPENED:
        masked.phase = HubPhase.FAILED.value


def spoken_verdict(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
    """Say whether a phase in which sites send messages waits, is over, or has failed."""
    standing, phase = _standing(turn, masked, tasks), HubPhase(masked.phase)
    patient = VERDICTS[phase_verdict(standing)]
    if patient is not Verdict.WAIT or phase not in CLOSED_BY_THE_THRESHOLD:
        return patient
    eager = VERDICTS[phase_verdict(standing, enough_is_all=True)]
    if eager is Verdict.CLOSE and phase is HubPhase.REVEALS and _who_spoiled(turn, masked) is None:
        return Verdict.WAIT  # a share among the first is wrong: those still to come may make up for it
    return eager


def _who_spoiled(turn: Turn, masked: MaskingRoundRow) -> tuple[str, ...] | None:
    """Return who revealed shares that do not fit and are made up for, or None if the masks do not come off yet."""
    try:
        return opened_masks(posted_roster(turn.session, masked), revealed_opening(turn.session, masked))[1]
    except MaskingError:
        return None


def what_was_missing(turn: Turn, masked: MaskingRoundRow, vectors: int) -> str:
    """Say how many sites were missing in the present phase; `vectors` were accepted."""
    here = vectors
    if (kind := SPOKEN_IN.get(HubPhase(masked.phase))) is not None:
        here = len(who_has_spoken(turn.session, masked, kind))
    return f"{here} sites {MISSED[masked.phase]}; {_needed(turn, masked)} are needed. Nothing was opened."


def go_on(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> bool:
    """Go on to the next phase; True from uploads, which the caller leaves, and from reveals."""
    phase = HubPhase(masked.phase)
    if phase is HubPhase.KEYS:
        _post_roster(turn, masked, tasks)
    elif phase is HubPhase.SHARES:
        _deliver_shares(turn, masked, tasks)
    elif phase is HubPhase.SEEN:
        _post_proof(turn, masked)
    elif phase is HubPhase.REVEALS:
        if spoiled := _who_spoiled(turn, masked):
            subject = f"{turn.study.name}.r{masked.round}"
            turn.audit("hub", "masking.wrong-shares", subject, {"task_kind": masked.task_kind, "sites": list(spoiled)})
        _enter(turn, masked, phase)
    return phase in (HubPhase.UPLOADS, HubPhase.REVEALS)


def fix_survivors(turn: Turn, masked: MaskingRoundRow, sites: Sequence[str]) -> None:
    """Fix whose vectors will be added, and tell them."""
    survivors = sorted(sites)
    masked.survivors = json.dumps(survivors)
    message = MaskingSurvivors(
        study_digest=masked.study,
        round=masked.round,
        task_kind=kind_of(masked),
        roster_digest=masked.roster_digest or "",
        survivors=survivors,
    )
    _post_to(turn, survivors, message)
    _enter(turn, masked, HubPhase.UPLOADS)


def fewest_vectors(turn: Turn, masked: MaskingRoundRow) -> int:
    """Return how many members must be left to open a sum: for the shares, and for the crowd that was approved."""
    return max(_threshold(masked), fewest_survivors(turn.spec))


def kind_of(masked: MaskingRoundRow) -> MaskedKind:
    """Return which of a round's tasks the masks are for."""
    return "evaluate" if masked.task_kind == "evaluate" else "train"


def _uploads_verdict(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
    accepted = sum(task.state == TaskState.ACCEPTED for task in tasks)
    waiting = sum(is_waiting(task.state) for task in tasks)
    needed = _needed(turn, masked)
    if accepted + waiting < needed:
        return Verdict.FAIL
    if accepted >= needed and (waiting == 0 or turn.now >= row.deadline_at):
        return Verdict.CLOSE
    return Verdict.WAIT


def _standing(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskStanding]) -> PhaseStanding:
    phase = HubPhase(masked.phase)
    spoken = who_has_spoken(turn.session, masked, SPOKEN_IN[phase])
    overdue, needed = turn.now >= masked.deadline_at, _needed(turn, masked)
    if phase in CLOSED_BY_THE_THRESHOLD:
        survivors = names_in(masked.survivors)
        return PhaseStanding(len(survivors), len(spoken), 0, needed, overdue)
    expected = names_in(masked.asked if phase is HubPhase.KEYS else masked.roster)
    here = {task.site for task in tasks if is_waiting(task.state)} & set(expected)
    return PhaseStanding(len(expected), len(spoken & here), len(expected) - len(here), needed, overdue)


def _needed(turn: Turn, masked: MaskingRoundRow) -> int:
    """Return how many sites must have spoken, or sent their vectors, for the present phase to be left."""
    phase = HubPhase(masked.phase)
    if phase in CLOSED_BY_THE_THRESHOLD:
        return _threshold(masked)
    if phase is HubPhase.KEYS:
        return max(FEWEST_MEMBERS, fewest_vectors(turn, masked))
    if phase is HubPhase.UPLOADS and masked.task_kind == "train":
        quorum = needed_updates(len(names_in(masked.asked)), turn.spec.participants.quorum)
        return max(quorum, fewest_vectors(turn, masked))
    return fewest_vectors(turn, masked)


def _threshold(masked: MaskingRoundRow) -> int:
    """Return the threshold of the roster; of the asked sites while there is none yet."""
    return threshold_of(len(names_in(masked.roster) or names_in(masked.asked)))


def _post_roster(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> None:
    found = _spoken(turn, masked, "keys", tasks)
    masked.roster_digest = roster_of(expect(read_unverified(e), MaskingKeys) for e in found.values()).digest
    masked.roster = json.dumps(list(found))
    message = MaskingRoster(
        study_digest=masked.study,
        round=masked.round,
        task_kind=kind_of(masked),
        members=[envelope.decode() for envelope in found.values()],
    )
    _go_on_with(turn, masked, found, tasks, "keys")
    _post_to(turn, list(found), message)


def _deliver_shares(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> None:
    found = _spoken(turn, masked, "shares", tasks)
    sealed = {site: expect(read_unverified(e), MaskingShares).sealed for site, e in found.items()}
    for site in found:
        message = MaskingDelivery(
            study_digest=masked.study,
            round=masked.round,
            task_kind=kind_of(masked),
            roster_digest=masked.roster_digest or "",
            sealed={sender: texts[site] for sender, texts in sealed.items() if sender != site},
        )
        _post_to(turn, [site], message)
    masked.members = json.dumps(list(found))
    _go_on_with(turn, masked, found, tasks, "shares")


def _post_proof(turn: Turn, masked: MaskingRoundRow) -> None:
    rows = masking_messages(turn.session, masked, "seen")
    message = MaskingProof(
        study_digest=masked.study,
        round=masked.round,
        task_kind=kind_of(masked),
        roster_digest=masked.roster_digest or "",
        seen=[found.envelope.decode() for found in rows],
    )
    _post_to(turn, names_in(masked.survivors), message)
    _enter(turn, masked, HubPhase.SEEN)


def _go_on_with(
    turn: Turn, masked: MaskingRoundRow, found: dict[str, bytes], tasks: Sequence[TaskRow], phase: str
) -> None:
    cancel_waiting(turn, [task for task in tasks if task.site not in found], SILENT.format(phase))
    _enter(turn, masked, HubPhase(phase))


def _spoken(turn: Turn, masked: MaskingRoundRow, kind: str, tasks: Sequence[TaskRow]) -> dict[str, bytes]:
    """Return the envelopes of a phase, by site, of the sites that are still waited for."""
    here = {task.site for task in tasks if is_waiting(task.state)}
    found = masking_messages(turn.session, masked, kind)
    return {message.site: message.envelope for message in found if message.site in here}


def _enter(turn: Turn, masked: MaskingRoundRow, left: HubPhase) -> None:
    masked.phase = NEXT_HUB_PHASE[left].value
    masked.deadline_at = turn.now + turn.spec.secure_aggregation.phase_seconds
    turn.session.flush()
    names = ("roster", "members", "survivors")
    details: dict[str, object] = {name: list(names_in(getattr(masked, name))) for name in names}
    details |= {"study": masked.study, "round": masked.round, "roster_digest": masked.roster_digest}
    details |= {"task_kind": masked.task_kind}
    turn.audit("hub", f"masking.{masked.phase}", f"{turn.study.name}.r{masked.round}", details)


def _post_to(turn: Turn, sites: Sequence[str], message: Message) -> None:
    post_to_all(turn.session, turn.services, sites, message)
