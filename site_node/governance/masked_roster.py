"""Who takes part in a masked round, as this site checks it: the roster, the delivery and the proof, against our pins.

Nothing here changes anything; each function returns what it checked or raises.
"""

from protocol.errors import MaskingError
from protocol.messages import expect
from protocol.secure_aggregation.key_agreement import commitment_to, public_key_of
from protocol.secure_aggregation.roster import Roster, open_roster
from protocol.secure_messages import (
    MOST_MEMBERS,
    MaskingDelivery,
    MaskingKeys,
    MaskingProof,
    MaskingRoster,
    SurvivorsSeen,
    digest_of_names,
)
from protocol.shared_noise import fewest_survivors
from protocol.signing import PublicKey, open_envelope, read_unverified
from site_node.governance.context import GateContext
from site_node.governance.masking_records import MaskedRound
from site_node.governance.peers import load_peers
from site_node.governance.records import study_record


def checked_roster(context: GateContext, known: MaskedRound, body: bytes) -> Roster:
    """Return the roster that the hub posted, if it is of this round, holds our own keys and is of a size it may be.

    Raises: UnknownPeerError if a member is not pinned here or did not sign; MaskingError for another fault.
    """
    message = expect(body, MaskingRoster)
    roster = open_roster(message.members, pinned_keys(context))
    record = study_record(context.database, known.study)
    if record is None:
        raise MaskingError("The study of a masked round is not known.")
    most, fewest = record.study.secure_aggregation.maximum_sites, fewest_survivors(record.study)
    if known.task_kind == "evaluate":
        most = MOST_MEMBERS  # counts are bounded for so many; the study's bound is on who trains
    if (roster.study_digest, roster.round, roster.task_kind) != (known.study, known.round, known.task_kind):
        raise MaskingError("The roster is of another round.")
    if most is None or len(roster.names) > most:
        raise MaskingError(f"The roster names {len(roster.names)} sites; the study's sums hold at most {most}.")
    if len(roster.names) < fewest:  # the hub would choose how small the crowd is
        raise MaskingError(f"The roster names {len(roster.names)} sites; the study's crowd is {fewest} at least.")
    secrets = (known.channel_key or b"", known.mask_key or b"", known.seed or b"")
    if roster.keys.get(context.settings.name) != own_keys(context, known, secrets):
        raise MaskingError("The roster does not hold this site's own keys.")
    return roster


def known_roster(context: GateContext, known: MaskedRound) -> Roster:
    """Return the roster that this site has answered, checked against the pins of now."""
    message = expect(known.roster or b"", MaskingRoster)
    return open_roster(message.members, pinned_keys(context))


def pinned_keys(context: GateContext) -> dict[str, PublicKey]:
    """Return the pinned identity keys by name, and our own."""
    return {**load_peers(context.paths), context.settings.name: context.key.public}


def own_keys(context: GateContext, known: MaskedRound, secrets: tuple[bytes, bytes, bytes]) -> MaskingKeys:
    """Return our public keys of a round."""
    channel, mask, seed = secrets
    return MaskingKeys(
        site=context.settings.name,
        task_id=known.task_id,
        study_digest=known.study,
        round=known.round,
        task_kind=known.task_kind,
        channel_key=public_key_of(channel).hex(),
        mask_key=public_key_of(mask).hex(),
        seed_commitment=commitment_to(seed),
    )


def masked_members(context: GateContext, roster: Roster, body: bytes) -> list[str]:
    """Return the members that masks are made with: those whose shares were delivered, and this site.

    Raises: MaskingError if they are not of the roster, or fewer than the threshold.
    """
    delivery, own = expect(body, MaskingDelivery), context.settings.name
    members = sorted({*delivery.sealed, own})
    if delivery.roster_digest != roster.digest or own in delivery.sealed or not set(members) <= set(roster.names):
        raise MaskingError("The delivery of shares is not of this round's roster.")
    if len(members) < roster.threshold:
        raise MaskingError(f"The delivery names {len(members)} members; {roster.threshold} are needed.")
    return members


def check_proof(
    context: GateContext, roster: Roster, proof: MaskingProof, members: list[str], survivors: list[str]
) -> None:
    """Demand that enough survivors signed that they see the same members and survivors as we do.

    Source: Bonawitz et al. 2017, Figure 4, round 3 (consistency check).
    """
    keys, signers = pinned_keys(context), set()
    lists = (digest_of_names(members), digest_of_names(survivors))
    for envelope in proof.seen:
        claimed = expect(read_unverified(envelope.encode()), SurvivorsSeen).site
        if claimed not in survivors or claimed not in keys:
            raise MaskingError("A proof holds the word of somebody who is no survivor.")
        seen = expect(open_envelope(envelope.encode(), keys[claimed]), SurvivorsSeen)
        of = (roster.study_digest, roster.round, roster.task_kind, roster.digest)
        same = (seen.study_digest, seen.round, seen.task_kind, seen.roster_digest) == of
        if not same or (seen.members_digest, seen.survivors_digest) != lists or seen.site != claimed:
            raise MaskingError(f"The hub showed {claimed} other members or survivors than us.")
        signers.add(claimed)
    if proof.roster_digest != roster.digest or len(signers) < roster.threshold:
        raise MaskingError(f"{len(signers)} survivors signed the list; {roster.threshold} are needed.")
