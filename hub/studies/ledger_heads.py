"""The sites' privacy ledgers, as the hub countersigns them: so that a restored backup cannot hand a budget back.

Each charge is signed by the site's gate, names the new head of its ledger and the head before it, and is kept as it
came. Who the patients are, and how many, is not told. The receipt is the countersignature.

    the new head is known already                  the same message again: nothing changes
    it follows the head that is kept               the ledger went on
    it follows a later head than is kept,          a charge between them is still on its way (or this hub was restored
    or a kept charge follows it                    from a backup): kept all the same
    anything else                                  the ledger was rolled back or forked: refused, audited, and the site
                                                   is sent its own earlier charges, so that it can make up for them
"""

from collections.abc import Sequence
from typing import Literal

from hub.audit.log import append
from hub.errors import ChargeMissingError, NotFoundError
from hub.mail import post
from hub.services import Services
from hub.storage import ledger_stores, round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import LedgerChargeRow, LedgerHeadRow
from hub.studies.specification import stored_study
from hub.studies.stated_accounts import TOLERANCE, is_known, statement_problem
from protocol.digest import digest_of
from protocol.messages import MAX_RECORD_CHARGES, Approval, LedgerCharge, LedgerHead, LedgerRecord, UpdateNotice, expect
from protocol.noised_counts import figure_events
from protocol.privacy_accounting import epsilon_of, held_out_event, training_events
from protocol.privacy_events import PrivacyEvent
from protocol.signing import read_unverified
from protocol.study import StudySpec

CONFLICT = "The charge does not follow the ledger that this hub has countersigned: the ledger was rolled back."
Standing = Literal["known", "next", "between", "conflict"]


def head_of(session: Session, site: str) -> LedgerHead | None:
    """Return the last head of a site's ledger that was countersigned, or None."""
    return heads_of(session, [site]).get(site)


def heads_of(session: Session, sites: Sequence[str]) -> dict[str, LedgerHead]:
    """Return the last countersigned heads of several sites' ledgers; a site without a charge has none."""
    rows = ledger_stores.heads(session, sites)
    return {site: LedgerHead(number=row.number, chain=row.chain) for site, row in rows.items()}


def record_charge(services: Services, charge: LedgerCharge, envelope: bytes) -> str | None:
    """Keep a charge, and return why it is not taken, or None; the same charge again changes nothing.

    The caller has checked that the site's gate signed it.
    Raises: NotFoundError if the site was not invited to the study.
    """
    training = charge.charged.get("training", [])
    epsilon = None if charge.unprotected else epsilon_of(training, charge.delta)  # slow: before the transaction
    with services.transaction() as session:
        study = stores.study(session, charge.study_digest)
        if stores.find_participant(session, charge.study_digest, charge.site) is None:
            raise NotFoundError("The site was not invited to this study.", "Ask its researcher.")
        standing = _standing(session, charge, envelope)
        spec = stored_study(study.specification)
        problem = CONFLICT if standing == "conflict" else terms_problem(charge, epsilon, spec, study.noise_multiplier)
        if standing == "known":
            return None
        actor, details = f"site:{charge.site}", _details(charge, epsilon)
        if problem is not None:
            append(session, services.clock(), actor, "ledger.refused", study.digest, {**details, "reason": problem})
            if standing == "conflict":
                post_record(session, services, charge.site)
            return problem
        _keep(session, charge, envelope, epsilon, services.clock())
        if standing == "next":
            ledger_stores.set_head(session, charge.site, charge.number, charge.chain)
        append(session, services.clock(), actor, "ledger.charged", study.digest, details)
    return None


def terms_problem(
    charge: LedgerCharge, training_epsilon: float | None, spec: StudySpec, noise_multiplier: float | None
) -> str | None:
    """Say what of a charge does not fit the study's terms, or None: neither more nor less than planned. Pure.

    A site that does not train, or holds nobody out, charges only what it takes part in (`check_charged`).
    """
    if charge.delta != spec.privacy.delta:
        return "The charge's delta is not the study's."
    target = spec.privacy.epsilon
    if charge.unprotected != (target is None) and (charge.unprotected or "training" in charge.charged):
        return "The charge is for training with differential privacy and the study is without, or the other way round."
    if target is not None and training_epsilon is not None and training_epsilon > target * (1 + TOLERANCE):
        return f"The charged training events spend epsilon {training_epsilon:.4g}, above the study's {target:g}."
    planned = planned_charges(spec, noise_multiplier)
    if not charge.charged and not charge.unprotected:
        return "The charge holds no event."
    for patients, events in charge.charged.items():
        if events != planned.get(patients):
            return f"The events charged to {patients} patients are not those that the study plans."
    return None


def planned_charges(spec: StudySpec, noise_multiplier: float | None) -> dict[str, list[PrivacyEvent]]:
    """Return the planned maximum of a study for each group of patients that it touches with a mechanism. Pure."""
    planned: dict[str, list[PrivacyEvent]] = {}
    if noise_multiplier is not None:
        planned["training"] = training_events(spec, noise_multiplier, spec.maximum_training_tasks)
    elif figures := figure_events(spec):
        planned["training"] = figures
    judged = held_out_event(spec)
    if judged is not None:
        planned["held-out"] = [judged]
    return planned


def check_charged(session: Session, approval: Approval, spec: StudySpec) -> None:
    """Check that what a site approves to spend stands in its ledger, as this hub keeps it.

    Raises: ChargeMissingError if the charge has not come yet; the approval is then sent again.
    """
    trains = approval.training_patients > 0 and (spec.privacy.epsilon is not None or bool(figure_events(spec)))
    judges = approval.evaluates and spec.evaluation.noise_epsilon is not None
    if approval.decision != "approved" or not (trains or judges):
        return
    needed = {patients for patients, wanted in (("training", trains), ("held-out", judges)) if wanted}
    rows = ledger_stores.charges_of_study(session, approval.site, approval.study_digest)
    kept = [expect(read_unverified(row.envelope), LedgerCharge) for row in rows]  # verified when they came
    if not needed <= {patients for charge in kept for patients in charge.charged}:
        raise ChargeMissingError(
            "The approval has no charge in this hub's copy of the site's privacy ledger.",
            "The charge comes first; if it was refused, see `wardround site budget` and `wardround site reconcile`.",
        )


def post_record(session: Session, services: Services, site: str) -> None:
    """Send a site all charges that it ever signed, so that its administrator can make up for a gap.

    The last message is never full, if need be empty: so the site knows that it has heard all.
    """
    envelopes = [row.envelope.decode() for row in ledger_stores.charges_of_site(session, site)]
    for start in range(0, len(envelopes) + 1, MAX_RECORD_CHARGES):
        post(session, services, site, LedgerRecord(site=site, charges=envelopes[start : start + MAX_RECORD_CHARGES]))


def account_problem(services: Services, site: str, notice: UpdateNotice) -> str | None:
    """Compare what an update says was spent with the site's own signed events and tasks; None if it holds.

    Slow the first time that anybody states it (`stated_accounts.py`): call it outside of a transaction.
    """
    account = notice.privacy
    if account is None:
        return None
    with services.reading() as session:
        study = stores.find_study(session, notice.study_digest)
        charges = ledger_stores.charges_of_study(session, site, notice.study_digest)
        known = study is not None and is_known(session, study, account)
        task = round_stores.task(session, notice.task_id)
    if study is None or task is None:
        return None  # whoever looks for the study and the task says so
    spec = stored_study(study.specification)
    if account.delta != spec.privacy.delta:
        return "The delta of the privacy spent is not the study's."
    most = max((row.training_epsilon for row in charges if row.training_epsilon is not None), default=None)
    if most is None:
        return "The update states privacy spent, and the site's ledger was not charged for the study."
    if account.epsilon > most * (1 + TOLERANCE):
        return f"The update states epsilon {account.epsilon:.4g}; the site's ledger was charged {most:.4g}."
    return statement_problem(study, account, task.sequence, known=known)


def _standing(session: Session, charge: LedgerCharge, envelope: bytes) -> Standing:
    known = ledger_stores.charge(session, charge.site, charge.chain)
    if known is not None:
        return "known" if known.envelope == envelope else "conflict"
    last = ledger_stores.head(session, charge.site)
    if _chain(charge.follows) == (None if last is None else last.chain):
        return "next"
    if ledger_stores.charge_after(session, charge.site, charge.chain) is not None:
        return "between"
    return "next" if _is_ahead(charge.follows, last) else "conflict"


def _is_ahead(follows: LedgerHead | None, last: LedgerHeadRow | None) -> bool:
    return follows is not None and follows.number > (0 if last is None else last.number)


def _chain(head: LedgerHead | None) -> str | None:
    return None if head is None else head.chain


def _keep(session: Session, charge: LedgerCharge, envelope: bytes, epsilon: float | None, now: float) -> None:
    row = LedgerChargeRow(
        site=charge.site,
        chain=charge.chain,
        number=charge.number,
        follows=_chain(charge.follows),
        study=charge.study_digest,
        training_epsilon=epsilon,
        envelope=envelope,
        received_at=now,
    )
    session.add(row)
    session.flush()


def _details(charge: LedgerCharge, epsilon: float | None) -> dict[str, object]:
    events: dict[str, Sequence[object]] = {
        patients: [event.model_dump(mode="json", by_alias=True) for event in own]
        for patients, own in sorted(charge.charged.items())
    }
    return {
        "number": charge.number,
        "chain": charge.chain,
        "epsilon": epsilon,
        "delta": charge.delta,
        "unprotected": charge.unprotected,
        "events": digest_of(events),
    }
