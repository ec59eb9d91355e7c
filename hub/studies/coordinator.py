"""Propose, start and stop a study, and record the sites' answers: one transaction each, with its audit entry."""

from collections.abc import Sequence
from datetime import datetime

from hub.audit.log import append
from hub.auth.enrolment import SiteState
from hub.errors import NotFoundError, RequestError, StateError
from hub.mail import post, post_to_all
from hub.rounds import coordinator as rounds
from hub.services import Services
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import ParticipantRow, StudyRow
from hub.studies.ending import end_study, move_study
from hub.studies.ledger_heads import check_charged, heads_of, post_record
from hub.studies.lifecycle import Answer, StudyEvent, StudyState, is_open, next_participant_state, outcome_of
from hub.studies.specification import stored_study
from hub.studies.starting_weights import check_start
from protocol.digest import digest_of_bytes
from protocol.messages import Approval, Reason, StudyProposal
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec

FIGURE_FACTOR = 10


def propose(services: Services, spec: StudySpec, sites: Sequence[str], person: str) -> str:
    """Propose a study to sites (none named: to all that are enrolled) and return its digest.

    The same study proposed to the same sites again changes nothing, so that a lost answer can be asked for again.
    Raises: RequestError if sites are unknown or too few, StateError if the name or the study is taken.
    """
    noise_multiplier = noise_multiplier_of(spec)  # seconds of work; before the transaction
    document = spec.canonical_bytes()
    digest = digest_of_bytes(document)
    with services.transaction() as session:
        check_start(session, spec)
        invited = _invited(session, spec, sites)
        if _is_repeated(session, spec, digest, invited):
            return digest
        row = StudyRow(
            digest=digest,
            name=spec.name,
            specification=document,
            noise_multiplier=noise_multiplier,
            state=StudyState.PROPOSED,
            proposed_by=person,
            proposed_at=services.clock(),
        )
        session.add(row)
        session.flush()
        details = {"name": spec.name, "sites": list(invited), "noise_multiplier": noise_multiplier}
        append(session, services.clock(), f"person:{person}", "study.proposed", digest, details)
        session.add_all(ParticipantRow(study=digest, site=site, state="invited") for site in invited)
        session.flush()
        proposal = StudyProposal(
            study_digest=digest, study=spec.model_dump(mode="json", by_alias=True), noise_multiplier=noise_multiplier
        )
        _post_proposal(session, services, invited, proposal)
    return digest


def record_approval(services: Services, approval: Approval, envelope: bytes) -> None:
    """Record a site's decision, and start or fail the study if that settles it; the same one again changes nothing.

    The caller has checked that the site's gate signed it.
    Raises: NotFoundError if the site was not invited; StateError if the study has ended or the decision is not legal;
        ChargeMissingError if the site's ledger was not charged for it yet.
    """
    with services.transaction() as session:
        study = stores.study(session, approval.study_digest)
        participant = stores.find_participant(session, approval.study_digest, approval.site)
        if participant is None:
            raise NotFoundError("The site was not invited to this study.", "Ask its researcher.")
        if participant.approval == envelope:
            return
        _check_open(study)
        spec = stored_study(study.specification)
        _check_figure(spec, approval)
        _check_noise(spec, approval)
        _check_quality(spec, approval)
        check_charged(session, approval, spec)
        withdrawn = participant.state == "approved" and approval.decision == "withdrawn"
        _write_answer(participant, approval, envelope, services.clock())
        details = approval.model_dump(mode="json", by_alias=True, exclude={"site", "study_digest"})
        append(session, services.clock(), f"site:{approval.site}", f"study.{approval.decision}", study.digest, details)
        session.flush()
        if approval.reason is Reason.LEDGER_BEHIND:
            post_record(session, services, approval.site)
        if study.state == StudyState.PROPOSED:
            _settle(session, services, study)
        elif withdrawn:
            rounds.withdraw_site(session, services, study, approval.site)


def start(services: Services, digest: str, person: str) -> None:
    """Start a proposed study without waiting for the sites that have not answered.

    Raises: StateError with the reason if it cannot start.
    """
    with services.transaction() as session:
        study = stores.study(session, digest)
        spec = stored_study(study.specification)
        outcome = outcome_of(spec, _answers(session, study), asked_to_start=True)
        if study.state == StudyState.PROPOSED and outcome.event != StudyEvent.START:
            raise StateError(f"The study cannot start. {outcome.reason}", "Wait for the sites' answers.")
        _start(session, services, study, spec, f"person:{person}")


def stop(services: Services, digest: str, person: str) -> None:
    """Stop a study: open tasks are cancelled, what was spent stays spent.

    Raises: StateError if it has ended.
    """
    with services.transaction() as session:
        study = stores.study(session, digest)
        _check_open(study)
        if study.state == StudyState.RUNNING:
            rounds.close_open_rounds(session, services, study, "The study was stopped.")
        end_study(session, services, study, StudyEvent.STOP, f"Stopped by {person}.", actor=f"person:{person}")


def _post_proposal(session: Session, services: Services, sites: Sequence[str], proposal: StudyProposal) -> None:
    """Post a proposal, to each site with the head of its ledger; those that have none yet share one message."""
    heads = heads_of(session, sites)
    post_to_all(session, services, [site for site in sites if site not in heads], proposal)
    for site, head in heads.items():
        post(session, services, site, proposal.model_copy(update={"ledger_head": head}))


def _settle(session: Session, services: Services, study: StudyRow) -> None:
    spec = stored_study(study.specification)
    outcome = outcome_of(spec, _answers(session, study))
    if outcome.event is StudyEvent.START:
        _start(session, services, study, spec, "hub")
    elif outcome.event is StudyEvent.FAIL:
        end_study(session, services, study, StudyEvent.FAIL, outcome.reason)


def _start(session: Session, services: Services, study: StudyRow, spec: StudySpec, actor: str) -> None:
    move_study(session, services, study, StudyEvent.START, actor, "")
    study.started_at = services.clock()
    session.flush()
    rounds.open_study(session, services, study, spec)


def _answers(session: Session, study: StudyRow) -> list[Answer]:
    return [Answer(*answer) for answer in stores.answers(session, study.digest)]


def _check_figure(spec: StudySpec, approval: Approval) -> None:
    # One site's absurd figure would make delta too large for the whole federation: it is that approval that is refused.
    expected = spec.participants.training_patients
    if expected is not None and approval.training_patients > FIGURE_FACTOR * expected:
        raise RequestError(
            f"The site says that it has {approval.training_patients} training patients; the study expects {expected} "
            "in all.",
            "Check the cohort, or have the study's participants.training_patients corrected.",
        )


def _check_noise(spec: StudySpec, approval: Approval) -> None:
    """Check that a number of training patients was noised as the study says, or is exact where it says nothing."""
    is_told = approval.decision == "approved" and approval.training_patients > 0
    if approval.count_epsilon != (spec.privacy.count_epsilon if is_told else None):
        raise RequestError(
            "The approval's number of training patients is not noised as the study says (privacy.count_epsilon).",
            "Do hub and site run the same release of Wardround?",
        )


def _check_quality(spec: StudySpec, approval: Approval) -> None:
    """Check that an approval tells the quality figures that the study reads, and no others."""
    wanted = approval.decision == "approved" and approval.training_patients > 0 and spec.site_rates.reads_quality
    figures = approval.quality
    fits = figures is None or (wanted and figures.fits(spec.site_rates, approval.training_patients))
    if not fits or wanted != (figures is not None):
        raise RequestError(
            "The approval's quality figures are not those that the study reads (site_rates).",
            "Do hub and site run the same release of Wardround?",
        )


def _check_open(study: StudyRow) -> None:
    if not is_open(study.state):
        raise StateError(f"The study has ended: it is {study.state}.", "Propose a new study.")


def _invited(session: Session, spec: StudySpec, wanted: Sequence[str]) -> list[str]:
    enrolled = [row.name for row in stores.sites(session) if row.state == SiteState.ENROLLED]
    unknown = sorted(set(wanted) - set(enrolled))
    if unknown:
        raise RequestError(
            f"Not enrolled at this hub: {', '.join(unknown)[:200]}.", f"Enrolled are: {', '.join(enrolled) or 'none'}."
        )
    invited = sorted(set(wanted)) or enrolled
    minimum = spec.participants.minimum_sites
    if len(invited) < minimum:
        raise RequestError(
            f"The study needs at least {minimum} sites (participants.minimum_sites); it would go to {len(invited)}.",
            "Enrol or name more sites, or lower participants.minimum_sites.",
        )
    return invited


def _is_repeated(session: Session, spec: StudySpec, digest: str, invited: Sequence[str]) -> bool:
    """Tell whether this very proposal was made before.

    Raises: StateError if the name is taken by another study, or the study went to other sites.
    """
    known = stores.study_named(session, spec.name)
    if known is None:
        return False
    same_sites = [row.site for row in stores.participants(session, known.digest)] == sorted(invited)
    if known.digest == digest and same_sites:
        return True
    what = "to other sites" if known.digest == digest else "with another specification"
    raise StateError(f"A study named {spec.name!r} was proposed {what}.", "Give this one another name.")


def _write_answer(participant: ParticipantRow, approval: Approval, envelope: bytes, now: float) -> None:
    participant.state = next_participant_state(participant.state, approval.decision)
    participant.reason = approval.reason
    if approval.decision == "approved":
        participant.training_patients = approval.training_patients
        participant.evaluates = approval.evaluates
        participant.expires_at = _seconds(approval.expires_at)
        participant.quality = None if approval.quality is None else approval.quality.model_dump_json()
    participant.approval = envelope
    participant.answered_at = now


def _seconds(rfc3339: str | None) -> float | None:
    if rfc3339 is None:
        return None
    try:
        moment = datetime.fromisoformat(rfc3339)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RequestError("expires_at is not an RFC 3339 time with its offset.", "Write it as 2031-01-31T12:00:00Z.")
    return moment.timestamp()
