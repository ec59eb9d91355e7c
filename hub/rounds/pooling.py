"""The opening of held-out counts: the survivors' vectors are added, the masks come off, one sum is kept.

Like a round's close it works outside any transaction on what is stored, and then in one transaction notes the sum and
goes on with the study. Killed before that transaction, nothing has happened; run twice, the second finds it done.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from hub.errors import AggregationError
from hub.rounds.asking import turn_on
from hub.rounds.course import complete_judging
from hub.rounds.masked_judging import UNJUDGED
from hub.rounds.masked_sum import RESTORE, names_in, posted_roster, revealed_opening
from hub.rounds.scoring import PooledReport
from hub.rounds.transitions import RoundState
from hub.services import Services
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import masking_messages, masking_round
from hub.storage.tables import MaskingRoundRow, PooledEvaluationRow
from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.held_out import counts_field
from protocol.messages import expect
from protocol.secure_aggregation.histograms import opened_histograms, opened_values, words_of
from protocol.secure_aggregation.masking import SignedMask, masks_on_sum
from protocol.secure_aggregation.phases import HubPhase
from protocol.secure_aggregation.ring import Words
from protocol.secure_messages import MaskedHistograms
from protocol.signing import read_unverified
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit

_log = structlog.get_logger()


def pool_counts(services: Services, study: str, number: int) -> bool:
    """Open the sum of a version's held-out counts; False if there is none to open (any more), or it does not open."""
    try:
        with services.reading() as session:
            masked = _to_open(session, study, number)
            report = None if masked is None else _opened(session, services, masked)
    except (AggregationError, ProtocolError) as error:
        _log.error("counts_not_opened", round=number, reason=str(error))
        _commit(services, study, number, None, f"{error} {UNJUDGED}")
        return False
    return report is not None and _commit(services, study, number, report, "")


def _to_open(session: Session, study: str, number: int) -> MaskingRoundRow | None:
    masked = masking_round(session, study, number, "evaluate")
    judged = round_stores.round_of(session, study, number).state == RoundState.EVALUATING
    return masked if judged and masked is not None and masked.phase == HubPhase.OPENED else None


def _opened(session: Session, services: Services, masked: MaskingRoundRow) -> PooledReport:
    spec, survivors = turn_on(session, services, masked.study).spec, names_in(masked.survivors)
    rows = [row for row in masking_messages(session, masked, "vector") if row.site in survivors]
    if len(rows) != len(survivors):
        raise AggregationError("The vectors of a version's judging are not its survivors'.", RESTORE)
    masks = masks_on_sum(posted_roster(session, masked), revealed_opening(session, masked))
    vectors = [words_of(expect(read_unverified(row.envelope), MaskedHistograms).words) for row in rows]
    return PooledReport(
        version=masked.round,
        sites=survivors,
        **_by_field(spec, vectors, masks),
        noise_epsilon=spec.evaluation.noise_epsilon,
    )


def _by_field(
    spec: StudySpec, vectors: Sequence[Words], masks: Sequence[SignedMask]
) -> dict[str, dict[HeldOutSplit, Any]]:
    """Return the sums as the field of a report that the study's counts go into."""
    if counts_field(spec) == "values":
        return {"values": dict(opened_values(spec, vectors, masks))}
    opened = opened_histograms(spec, vectors, masks)
    if counts_field(spec) == "classes":
        return {"classes": dict(opened)}
    return {"histograms": {split: own[0] for split, own in opened.items()}}


def _commit(services: Services, study: str, number: int, report: PooledReport | None, reason: str) -> bool:
    with services.transaction() as session:
        masked = _to_open(session, study, number)
        if masked is None:
            return False
        turn = turn_on(session, services, study)
        if report is None:
            masked.phase = HubPhase.FAILED.value
        else:
            document = report.model_dump_json().encode()
            session.add(PooledEvaluationRow(study=study, version=number, report=document, opened_at=turn.now))
            details: dict[str, object] = {"version": number, "sites": list(report.sites)}
            details["report"] = digest_of_bytes(document)
            turn.audit("hub", "evaluation.pooled", f"{turn.study.name}.r{number}", details)
        complete_judging(turn, round_stores.round_of(session, study, number), reason)
    return True
