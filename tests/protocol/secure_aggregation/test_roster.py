"""Rosters: who signs is who is pinned; keys of one round open nothing of another."""

import pytest

from protocol.errors import MaskingError
from protocol.secure_aggregation.key_agreement import mask_key, new_private_key, seal, unseal
from protocol.secure_aggregation.phases import (
    PhaseStanding,
    SiteEvent,
    SitePhase,
    next_site_phase,
    phase_verdict,
)
from protocol.secure_aggregation.roster import UnknownPeerError, open_roster, roster_of, threshold_of
from protocol.signing import SigningKey, sign
from tests.protocol.secure_aggregation.members import members_of, roster_for


@pytest.mark.parametrize(("members", "needed"), [(4, 3), (5, 4), (6, 5), (8, 6), (9, 7), (32, 22)])
def test_the_threshold_is_more_than_two_thirds(members: int, needed: int) -> None:
    assert threshold_of(members) == needed
    assert 2 * needed > members + (members - needed)  # no two survivor lists can both gather it around honest sites


def test_a_roster_of_pinned_signers_opens_in_the_order_of_names() -> None:
    members = members_of(4)
    identities = {m.name: SigningKey.generate() for m in members}
    envelopes = [sign(m.keys().canonical_bytes(), identities[m.name]).decode() for m in reversed(members)]
    roster = open_roster(envelopes, {name: key.public for name, key in identities.items()})
    assert roster.names == tuple(m.name for m in members)
    assert roster.digest == roster_for(members).digest
    assert [roster.point(name) for name in roster.names] == [1, 2, 3, 4]


def test_a_member_that_is_not_pinned_or_did_not_sign_is_refused_by_name() -> None:
    members = members_of(4)
    identities = {m.name: SigningKey.generate() for m in members}
    pinned = {name: key.public for name, key in identities.items()}
    honest = [sign(m.keys().canonical_bytes(), identities[m.name]).decode() for m in members]
    with pytest.raises(UnknownPeerError, match="site-002 has no pinned key"):
        open_roster(honest, {name: key for name, key in pinned.items() if name != "site-002"})
    forged = sign(members[2].keys().canonical_bytes(), SigningKey.generate()).decode()
    with pytest.raises(UnknownPeerError, match="site-002 did not sign"):
        open_roster([*honest[:2], forged, honest[3]], pinned)
    # The hub's own keys under a member's name, in an envelope that another member signed:
    stolen = sign(members[2].keys().canonical_bytes(), identities["site-001"]).decode()
    with pytest.raises(UnknownPeerError, match="site-002 did not sign"):
        open_roster([*honest[:2], stolen, honest[3]], pinned)


def test_small_doubled_or_mixed_rosters_are_refused() -> None:
    members = members_of(5)
    keys = [m.keys() for m in members]
    with pytest.raises(MaskingError, match="at least 4"):
        roster_of(keys[:3])
    with pytest.raises(MaskingError, match="each once"):
        roster_of([*keys[:4], keys[0]])
    with pytest.raises(MaskingError, match="one round"):
        roster_of([*keys[:4], members[4].keys(number=2)])
    with pytest.raises(MaskingError, match="use one key"):
        roster_of([*keys[:4], keys[4].model_copy(update={"mask_key": keys[0].mask_key})])


def test_a_mask_key_is_the_same_from_both_ends_and_another_in_every_other_roster() -> None:
    members = members_of(5)
    small, large = roster_for(members[:4]), roster_for(members)
    a, b = members[0], members[1]
    assert mask_key(a.mask, small, a.name, b.name) == mask_key(b.mask, small, b.name, a.name)
    assert mask_key(a.mask, small, a.name, b.name) != mask_key(a.mask, large, a.name, b.name)
    assert mask_key(a.mask, small, a.name, b.name) != mask_key(a.mask, small, a.name, members[2].name)


def test_a_sealed_share_opens_for_its_receiver_from_its_sender_in_its_round_only() -> None:
    members = members_of(4)
    roster, other = roster_for(members), roster_of([m.keys(number=2) for m in members])
    a, b, c = members[:3]
    sealed = seal(a.channel, roster, a.name, b.name, b"x" * 66)
    assert unseal(b.channel, roster, b.name, a.name, sealed) == b"x" * 66
    for receiver, sender, place, data in (
        (c, a.name, roster, sealed),
        (b, c.name, roster, sealed),
        (b, a.name, other, sealed),
        (b, a.name, roster, sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(MaskingError, match="cannot be opened"):
            unseal(receiver.channel, place, receiver.name, sender, data)


def test_a_key_that_leads_every_pair_to_one_secret_is_refused() -> None:
    members = members_of(4)
    keys = [m.keys() for m in members]
    roster = roster_of([*keys[:3], keys[3].model_copy(update={"mask_key": "00" * 32})])
    with pytest.raises(MaskingError, match="not usable"):
        mask_key(new_private_key(), roster, members[0].name, members[3].name)


@pytest.mark.parametrize(
    ("arrived", "gone", "overdue", "verdict"),
    [
        (5, 0, False, "close"),
        (4, 1, False, "close"),
        (4, 0, False, "wait"),
        (4, 0, True, "close"),
        (3, 0, True, "fail"),
        (3, 2, False, "fail"),
        (0, 2, False, "fail"),
        (0, 0, False, "wait"),
    ],
)
def test_a_phase_closes_when_all_have_answered_or_at_its_deadline_with_enough(
    arrived: int, gone: int, overdue: bool, verdict: str
) -> None:
    assert phase_verdict(PhaseStanding(5, arrived, gone, 4, overdue)) == verdict


def test_where_enough_is_all_nobody_is_waited_for() -> None:
    assert phase_verdict(PhaseStanding(5, 4, 0, 4, overdue=False), enough_is_all=True) == "close"


def test_a_site_goes_through_its_phases_once_and_in_order() -> None:
    phase = SitePhase.KEYED
    for event in (SiteEvent.ROSTER, SiteEvent.DELIVERY, SiteEvent.SURVIVORS, SiteEvent.PROOF):
        reached = next_site_phase(phase, event)
        with pytest.raises(MaskingError, match="any more"):
            next_site_phase(reached, event)
        phase = reached
    assert phase is SitePhase.REVEALED
    with pytest.raises(MaskingError, match="any more"):
        next_site_phase(phase, SiteEvent.GIVEN_UP)
