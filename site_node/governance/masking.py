"""The site's side of a masked round: keys, shares, the masked vector, the list of survivors, and one reveal.

    task accepted -> MaskingKeys        roster -> MaskingShares        delivery and candidate -> UpdateNotice, vector
    survivors -> SurvivorsSeen          proof -> MaskingReveal, and the secrets are erased

Each arrow is one transaction: the phase, the secrets and the recorded message become durable together, before anything
can leave. So after a crash the same bytes are sent again, or the step is done for the first time. A site reveals once,
for one list of survivors, and of each peer either the share of its seed or the share of its mask key.
"""

from collections.abc import Callable, Mapping

import structlog

from protocol.errors import MaskingError, ProtocolError
from protocol.homomorphic.scheme import SecretKeyCipher
from protocol.messages import Reason, RoundTask, TaskKind, expect
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.secure_aggregation.key_agreement import new_private_key, seal, unseal
from protocol.secure_aggregation.masking import SignedMask, masks_of_site
from protocol.secure_aggregation.phases import SiteEvent, SitePhase
from protocol.secure_aggregation.roster import Roster, UnknownPeerError
from protocol.secure_aggregation.secret_sharing import SHARE_BYTES, split_secret
from protocol.secure_messages import (
    MaskedKind,
    MaskingDelivery,
    MaskingProof,
    MaskingReveal,
    MaskingShares,
    MaskingSurvivors,
    SurvivorsSeen,
    digest_of_names,
)
from protocol.shared_noise import fewest_survivors
from protocol.study import StudySpec
from site_node.governance import high_water
from site_node.governance.approval import decisions_on, standing_of
from site_node.governance.context import GateContext
from site_node.governance.decrypting import (
    awaited_request,
    contribution_for_all,
    has_fetched,
    is_encrypted,
    open_sum,
    round_cipher,
)
from site_node.governance.masked_roster import (
    check_proof,
    checked_roster,
    known_roster,
    masked_members,
    own_keys,
    pinned_keys,
)
from site_node.governance.masking_records import (
    MailKind,
    MaskedRound,
    add_round,
    erase_mask_secrets,
    erase_secrets,
    masked_round,
    masking_mail,
    move,
    open_rounds,
    sweep_erased,
)
from site_node.governance.records import study_record, task_record
from site_node.sqlite import transaction

RefuseTask = Callable[[str, Reason], None]
"""Answers a task with a refusal, within a transaction."""
_log = structlog.get_logger()


def is_masked(task: RoundTask, study: StudySpec) -> bool:
    """Tell whether the answer to a task is a masked or encrypted vector.

    In a study that sums held-out counts they leave under masks or not at all: whatever the hub asks, never in clear.
    """
    if task.kind is TaskKind.EVALUATE:
        return sums_histograms(study)
    return task.kind is TaskKind.TRAIN and study.secure_aggregation.method != "none"


def masked_kind(task: RoundTask) -> MaskedKind:
    """Return the kind of a task that is answered by a vector."""
    return "evaluate" if task.kind is TaskKind.EVALUATE else "train"


def begin(context: GateContext, task: RoundTask) -> None:
    """Make the secrets of a round, erase those of earlier ones, and send the public keys.

    Call within the transaction that accepts the task, and `sweep_erased` after it.
    """
    for earlier in open_rounds(context.database, task.study_digest):
        _end(context, earlier)
    channel, mask, seed = (new_private_key() for _ in range(3))
    kind, secrets = masked_kind(task), (channel, mask, seed)
    add_round(context.database, task.study_digest, task.round, kind, task.task_id, secrets)
    context.send(own_keys(context, _round_of(context, task), secrets))


def advance_masking(context: GateContext, refuse: RefuseTask) -> int:
    """Do what the hub's messages ask for, one step for each round; return how many steps were done."""
    done = 0
    for known in open_rounds(context.database):
        step = _STEPS.get(known.phase)
        if not _may_go_on(context, known):
            with transaction(context.database):
                _end(context, known)
            sweep_erased(context.database)
            done += 1
        elif _waits_for_files(context, known):
            continue
        elif step is not None and (body := masking_mail(context.database, known, step[0])) is not None:
            _attempt(context, known, body, step[1], refuse)
            done += 1
        context.checkpoint("masking advanced")
    return done


def is_delivered(context: GateContext, task: RoundTask) -> bool:
    """Tell whether the peers' shares, or their parts of the key, have come. Cheap: no mask is made.

    Raises: MaskingError if the round is over: then nothing is waited for.
    """
    return _delivery_of(context, task)[1] is not None


def delivered_masks(context: GateContext, task: RoundTask) -> list[SignedMask]:
    """Return the masks of a task's vector.

    Raises: MaskingError if the delivery has not come or is not one of this round's members, or the round is over.
    """
    known, roster, members, _ = _delivered(context, task)
    if known.seed is None or known.mask_key is None:
        raise MaskingError("The round's secrets were erased. Nothing leaves for it.")
    return masks_of_site(roster, members, context.settings.name, known.seed, known.mask_key)


def roster_digest_of(context: GateContext, task: RoundTask) -> str:
    """Return the digest of the roster that a task's masks are made with."""
    return known_roster(context, _round_of(context, task)).digest


def delivered_cipher(context: GateContext, task: RoundTask) -> SecretKeyCipher:
    """Return the cipher of a task's round.

    Raises: MaskingError or EncryptionError if the parts of its key have not come, are not of this round's members, or
        one does not open.
    """
    known, roster, _, body = _delivered(context, task)
    return round_cipher(context, known, roster, body)


def note_masked(context: GateContext, task: RoundTask) -> None:
    """Note that the masked vector is the round's output, and erase what made it.

    Call within that transaction, and `sweep_erased` after it.
    """
    known = _round_of(context, task)
    move(context.database, known, SiteEvent.DELIVERY, delivery=masking_mail(context.database, known, "delivery"))
    erase_mask_secrets(context.database, known)


def _delivered(context: GateContext, task: RoundTask) -> tuple[MaskedRound, Roster, list[str], bytes]:
    """Return a round whose shares have come, with its roster, the members that masks are made with, and the letter."""
    known, body = _delivery_of(context, task)
    if body is None:
        raise MaskingError("The peers' part of the round has not come. The gate asks again by itself.")
    roster = known_roster(context, known)
    return known, roster, masked_members(context, roster, body), body


def _delivery_of(context: GateContext, task: RoundTask) -> tuple[MaskedRound, bytes | None]:
    known = masked_round(context.database, task.study_digest, task.round, masked_kind(task))
    if known is None or known.phase not in (SitePhase.KEYED, SitePhase.SHARED):
        raise MaskingError("The round's masks or key are gone. Nothing leaves for it.")
    return known, None if known.phase is SitePhase.KEYED else masking_mail(context.database, known, "delivery")


def _attempt(
    context: GateContext,
    known: MaskedRound,
    body: bytes,
    step: Callable[[GateContext, MaskedRound, bytes], None],
    refuse: RefuseTask,
) -> None:
    try:
        step(context, known, body)
    except ProtocolError as error:
        _log.error("masked_round_given_up", task=known.task_id, phase=known.phase.value, why=str(error))
        with transaction(context.database):
            if known.phase in (SitePhase.KEYED, SitePhase.SHARED):
                stranger = isinstance(error, UnknownPeerError)
                refuse(known.task_id, Reason.UNKNOWN_PEER if stranger else Reason.BAD_TASK)
            _end(context, known)
        sweep_erased(context.database)


def _take_roster(context: GateContext, known: MaskedRound, body: bytes) -> None:
    roster = checked_roster(context, known, body)
    if known.channel_key is None or known.mask_key is None or known.seed is None:
        raise MaskingError("The round's secrets were erased.")
    own, points = context.settings.name, [roster.point(name) for name in roster.names]
    seeds = split_secret(known.seed, roster.threshold, points)
    masks = split_secret(known.mask_key, roster.threshold, points)
    pairs = {name: (seeds[roster.point(name)], masks[roster.point(name)]) for name in roster.names}
    if _is_encrypted(context, known):
        pairs = contribution_for_all(roster.names)
    sealed = {
        name: seal(known.channel_key, roster, own, name, b"".join(pair)).hex()
        for name, pair in pairs.items()
        if name != own
    }
    shares = MaskingShares(
        site=own,
        task_id=known.task_id,
        study_digest=known.study,
        round=known.round,
        task_kind=known.task_kind,
        roster_digest=roster.digest,
        sealed=sealed,
    )
    context.checkpoint("shares made")
    with transaction(context.database):
        move(context.database, known, SiteEvent.ROSTER, roster=body, own_shares=pairs[own])
        context.send(shares)


def _see_survivors(context: GateContext, known: MaskedRound, body: bytes) -> None:
    roster, message = known_roster(context, known), expect(body, MaskingSurvivors)
    members, own = masked_members(context, roster, known.delivery or b""), context.settings.name
    survivors = message.survivors
    listed = sorted(set(survivors)) == survivors and set(survivors) <= set(members)
    if message.roster_digest != roster.digest or not listed or own not in survivors:
        raise MaskingError("The list of survivors is not one of this round's members.")
    needed = max(roster.threshold, _fewest_survivors(context, known))
    if len(survivors) < needed:
        raise MaskingError(f"The list names {len(survivors)} survivors; {needed} are needed.")
    seen = SurvivorsSeen(
        site=own,
        task_id=known.task_id,
        study_digest=known.study,
        round=known.round,
        task_kind=known.task_kind,
        roster_digest=roster.digest,
        members_digest=digest_of_names(members),
        survivors_digest=digest_of_names(survivors),
    )
    with transaction(context.database):
        move(context.database, known, SiteEvent.SURVIVORS, survivors=survivors)
        context.send(seen)


def _reveal(context: GateContext, known: MaskedRound, body: bytes) -> None:
    roster, proof = known_roster(context, known), expect(body, MaskingProof)
    members, survivors = masked_members(context, roster, known.delivery or b""), list(known.survivors or ())
    check_proof(context, roster, proof, members, survivors)
    if _is_encrypted(context, known):
        _open_sum(context, known, roster)
        return
    shares = _shares_held(context, known, roster)
    lost = [name for name in members if name not in survivors]
    reveal = MaskingReveal(
        site=context.settings.name,
        task_id=known.task_id,
        study_digest=known.study,
        round=known.round,
        task_kind=known.task_kind,
        roster_digest=roster.digest,
        seed_shares={name: shares[name][0].hex() for name in survivors if name in shares},
        key_shares={name: shares[name][1].hex() for name in lost if name in shares},
    )
    context.checkpoint("reveal made")
    with transaction(context.database):
        move(context.database, known, SiteEvent.PROOF)
        context.send(reveal)
        erase_secrets(context.database, known)
    sweep_erased(context.database)


def _open_sum(context: GateContext, known: MaskedRound, roster: Roster) -> None:
    """Decrypt the round's sum and make it this site's one output of that kind; it is never done again."""
    notice = open_sum(context, known, roster, pinned_keys(context))
    with transaction(context.database):
        move(context.database, known, SiteEvent.PROOF)
        number = context.send(notice)
        context.database.execute(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, ?)",
            (known.study, known.round, TaskKind.DECRYPT, notice.digest, number),
        )
        erase_secrets(context.database, known)
    sweep_erased(context.database)


_STEPS: dict[SitePhase, tuple[MailKind, Callable[[GateContext, MaskedRound, bytes], None]]] = {
    SitePhase.KEYED: ("roster", _take_roster),
    SitePhase.MASKED: ("survivors", _see_survivors),
    SitePhase.SEEN: ("proof", _reveal),
}


def _shares_held(context: GateContext, known: MaskedRound, roster: Roster) -> Mapping[str, tuple[bytes, bytes]]:
    """Return what this site holds of each masked member: shares of seed and mask key; those that open."""
    own = context.settings.name
    if known.channel_key is None or known.own_shares is None or known.delivery is None:
        raise MaskingError("The round's secrets were erased.")
    held = {own: known.own_shares}
    for sender, text in expect(known.delivery, MaskingDelivery).sealed.items():
        try:
            content = unseal(known.channel_key, roster, own, sender, bytes.fromhex(text))
        except MaskingError as error:  # the others' shares may be enough without this one
            _log.warning("share_not_usable", task=known.task_id, why=str(error))
            continue
        held[sender] = (content[:SHARE_BYTES], content[SHARE_BYTES:])
    return held


def _fewest_survivors(context: GateContext, known: MaskedRound) -> int:
    """Return how many must survive, as the study was approved; `roster.threshold` aside."""
    record = study_record(context.database, known.study)
    if record is None:
        raise MaskingError("The study of a masked round is not known.")
    return fewest_survivors(record.study)


def _is_encrypted(context: GateContext, known: MaskedRound) -> bool:
    """Tell whether a round's vectors are updates under encryption; held-out counts are under masks in any study."""
    record = study_record(context.database, known.study)
    return known.task_kind == "train" and record is not None and is_encrypted(record.study)


def _waits_for_files(context: GateContext, known: MaskedRound) -> bool:
    """Tell whether the sum cannot be opened yet because this site was not asked to, or its agent still fetches."""
    if known.phase is not SitePhase.SEEN or not _is_encrypted(context, known):
        return False
    request = awaited_request(context, known)
    return request is None or not has_fetched(context, request)


def _may_go_on(context: GateContext, known: MaskedRound) -> bool:
    """Tell whether the task is not refused or cancelled, the study is approved here, and no backup was restored."""
    record, study = task_record(context.database, known.task_id), study_record(context.database, known.study)
    if record is None or study is None or study.state != "approved":
        return False
    awaited = "accepted" if known.phase in (SitePhase.KEYED, SitePhase.SHARED) else "answered"
    if record.state != awaited or record.reason is not None:
        return False
    if high_water.objection_to(context, known.study) is not None:  # may have been revealed, with another list
        return False
    return standing_of(decisions_on(context.database, known.study), context.clock()) == "approved"


def _round_of(context: GateContext, task: RoundTask) -> MaskedRound:
    known = masked_round(context.database, task.study_digest, task.round, masked_kind(task))
    if known is None:
        raise MaskingError("The masked round is not known.")
    return known


def _end(context: GateContext, known: MaskedRound) -> None:
    move(context.database, known, SiteEvent.GIVEN_UP)
    erase_secrets(context.database, known)
