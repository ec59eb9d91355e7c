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
from hub.errors import AggregationError
from hub.mail import post
from hub.rounds.asking import Turn, cancel_waiting
from hub.rounds.closing import Verdict, needed_updates
from hub.rounds.masked_sum import names_in, stored_sum
from hub.rounds.transitions import TaskState, is_waiting
from hub.services import Services
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import masking_messages, masking_round, who_has_spoken
from hub.storage.tables import MaskingRoundRow, RoundRow, TaskRow
from protocol.message import Message
from protocol.messages import expect
from protocol.secure_aggregation.phases import (
    CLOSED_BY_THE_THRESHOLD,
    NEXT_HUB_PHASE,
    HubPhase,
    PhaseStanding,
    phase_verdict,
)
from protocol.secure_aggregation.roster import FEWEST_MEMBERS, roster_of, threshold_of
from protocol.secure_messages import (
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
        turn.session.add(
            MaskingRoundRow(
                study=row.study,
                round=row.number,
                phase=HubPhase.KEYS.value,
                deadline_at=turn.now + turn.spec.secure_aggregation.phase_seconds,
                asked=json.dumps(sorted(asked)),
                roster="[]",
                members="[]",
                survivors="[]",
            )
        )
        turn.session.flush()

    def verdict(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskRow]) -> Verdict:
        """Say whether the present phase waits, is over, or has failed."""
        masked = _masked(turn.session, row)
        phase = HubPhase(masked.phase)
        if phase is HubPhase.UPLOADS:
            return _uploads_verdict(turn, row, masked, tasks)
        if phase not in SPOKEN_IN:
            return Verdict.WAIT
        standing = _standing(turn, row, masked, tasks)
        return VERDICTS[phase_verdict(standing, enough_is_all=phase in CLOSED_BY_THE_THRESHOLD)]

    def why(self, turn: Turn, row: RoundRow) -> str:
        """Say how many sites were missing in which phase."""
        masked = _masked(turn.session, row)
        here = len(round_stores.updates_of_round(turn.session, row.study, row.number))
        if (kind := SPOKEN_IN.get(HubPhase(masked.phase))) is not None:
            here = len(who_has_spoken(turn.session, row.study, row.number, kind))
        fewest = FEWEST_MEMBERS if masked.phase == HubPhase.KEYS else 1
        if HubPhase(masked.phase) not in CLOSED_BY_THE_THRESHOLD:
            fewest = max(fewest, fewest_survivors(turn.spec))
        needed = max(fewest, _threshold(masked))
        return f"{here} sites {MISSED[masked.phase]}; {needed} are needed. Nothing was opened."

    def step(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskRow]) -> bool:
        """Go on to the next phase; True from uploads and from reveals."""
        masked = _masked(turn.session, row)
        phase = HubPhase(masked.phase)
        if phase is HubPhase.KEYS:
            _post_roster(turn, row, masked, tasks)
        elif phase is HubPhase.SHARES:
            _deliver_shares(turn, row, masked, tasks)
        elif phase is HubPhase.SEEN:
            _post_proof(turn, row, masked)
        elif phase is HubPhase.REVEALS:
            _enter(turn, masked, phase)
        return phase in (HubPhase.UPLOADS, HubPhase.REVEALS)

    def begin(self, turn: Turn, row: RoundRow) -> None:
        """Fix the survivors, the sites whose vectors were accepted, and tell them."""
        masked = _masked(turn.session, row)
        survivors = sorted(update.site for update in round_stores.updates_of_round(turn.session, row.study, row.number))
        masked.survivors = json.dumps(survivors)
        message = MaskingSurvivors(
            study_digest=row.study, round=row.number, roster_digest=masked.roster_digest or "", survivors=survivors
        )
        _post_to(turn, survivors, message)
        _enter(turn, masked, HubPhase.UPLOADS)

    def end(self, turn: Turn, row: RoundRow) -> None:
        """Note that the sum stays closed."""
        masked = masking_round(turn.session, row.study, row.number)
        if masked is not None and masked.phase != HubPhase.OPENED:
            masked.phase = HubPhase.FAILED.value

    def prepare(self, services: Services, study: str, number: int) -> bool:
        """Do nothing: the survivors need no work of the hub's."""
        return False

    def sum_of(self, services: Services, study: str, number: int) -> CountedUpdate:
        """Take the masks off the sum of the survivors' vectors and store the weighted mean."""
        with services.reading() as session:
            masked_sum = stored_sum(session, services, study, number)
        return CountedUpdate("sum", store_mean(masked_sum, services.blobs), 1.0)


def _uploads_verdict(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> Verdict:
    accepted = sum(task.state == TaskState.ACCEPTED for task in tasks)
    waiting = sum(is_waiting(task.state) for task in tasks)
    quorum = needed_updates(len(tasks), turn.spec.participants.quorum)
    needed = max(quorum, _threshold(masked), fewest_survivors(turn.spec))
    if accepted + waiting < needed:
        return Verdict.FAIL
    if accepted >= needed and (waiting == 0 or turn.now >= row.deadline_at):
        return Verdict.CLOSE
    return Verdict.WAIT


def _standing(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> PhaseStanding:
    phase = HubPhase(masked.phase)
    spoken = who_has_spoken(turn.session, row.study, row.number, SPOKEN_IN[phase])
    overdue, threshold = turn.now >= masked.deadline_at, _threshold(masked)
    if phase in CLOSED_BY_THE_THRESHOLD:
        survivors = names_in(masked.survivors)
        return PhaseStanding(len(survivors), len(spoken), 0, threshold, overdue)
    expected = names_in(masked.asked if phase is HubPhase.KEYS else masked.roster)
    here = {task.site for task in tasks if is_waiting(task.state)} & set(expected)
    needed = max(FEWEST_MEMBERS if phase is HubPhase.KEYS else 1, threshold, fewest_survivors(turn.spec))
    return PhaseStanding(len(expected), len(spoken & here), len(expected) - len(here), needed, overdue)


def _threshold(masked: MaskingRoundRow) -> int:
    """Return the threshold of the roster; of the asked sites while there is none yet."""
    return threshold_of(len(names_in(masked.roster) or names_in(masked.asked)))


def _post_roster(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> None:
    found = _spoken(turn, row, "keys", tasks)
    masked.roster_digest = roster_of(expect(read_unverified(e), MaskingKeys) for e in found.values()).digest
    masked.roster = json.dumps(list(found))
    message = MaskingRoster(
        study_digest=row.study, round=row.number, members=[envelope.decode() for envelope in found.values()]
    )
    _go_on_with(turn, masked, found, tasks, "keys")
    _post_to(turn, list(found), message)


def _deliver_shares(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> None:
    found = _spoken(turn, row, "shares", tasks)
    sealed = {site: expect(read_unverified(e), MaskingShares).sealed for site, e in found.items()}
    for site in found:
        message = MaskingDelivery(
            study_digest=row.study,
            round=row.number,
            roster_digest=masked.roster_digest or "",
            sealed={sender: texts[site] for sender, texts in sealed.items() if sender != site},
        )
        _post_to(turn, [site], message)
    masked.members = json.dumps(list(found))
    _go_on_with(turn, masked, found, tasks, "shares")


def _post_proof(turn: Turn, row: RoundRow, masked: MaskingRoundRow) -> None:
    rows = masking_messages(turn.session, row.study, row.number, "seen")
    message = MaskingProof(
        study_digest=row.study,
        round=row.number,
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


def _spoken(turn: Turn, row: RoundRow, kind: str, tasks: Sequence[TaskRow]) -> dict[str, bytes]:
    """Return the envelopes of a phase, by site, of the sites that are still waited for."""
    here = {task.site for task in tasks if is_waiting(task.state)}
    found = masking_messages(turn.session, row.study, row.number, kind)
    return {message.site: message.envelope for message in found if message.site in here}


def _enter(turn: Turn, masked: MaskingRoundRow, left: HubPhase) -> None:
    masked.phase = NEXT_HUB_PHASE[left].value
    masked.deadline_at = turn.now + turn.spec.secure_aggregation.phase_seconds
    turn.session.flush()
    names = ("roster", "members", "survivors")
    details: dict[str, object] = {name: list(names_in(getattr(masked, name))) for name in names}
    details |= {"study": masked.study, "round": masked.round, "roster_digest": masked.roster_digest}
    turn.audit("hub", f"masking.{masked.phase}", f"{turn.study.name}.r{masked.round}", details)


def _post_to(turn: Turn, sites: Sequence[str], message: Message) -> None:
    for site in sites:
        post(turn.session, turn.services, site, message)


def _masked(session: Session, row: RoundRow) -> MaskingRoundRow:
    found = masking_round(session, row.study, row.number)
    if found is None:
        raise AggregationError("A round's masks are not in the database.", "Restore the database from a backup.")
    return found
