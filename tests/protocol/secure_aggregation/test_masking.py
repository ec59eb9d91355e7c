"""Masks cancel in the sum of any survivors at or above the threshold, and hide everything else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MaskingError
from protocol.secure_aggregation.masking import (
    MaskStreams,
    Opening,
    SignedMask,
    add_masks,
    masks_of_site,
    masks_on_sum,
    opened_masks,
)
from protocol.secure_aggregation.ring import Ring
from protocol.secure_aggregation.roster import roster_of, threshold_of
from tests.protocol.secure_aggregation.members import (
    Member,
    masked,
    members_of,
    roster_for,
    shares_of,
    unmasked,
)


def opening_of(members: list[Member], masked_members: list[Member], survivors: list[Member]) -> Opening:
    """Return what all survivors reveal."""
    roster = roster_for(members)
    holders = [member.name for member in survivors]
    lost = [member for member in masked_members if member not in survivors]
    return Opening(
        members=tuple(member.name for member in masked_members),
        survivors=tuple(holders),
        seed_shares={member.name: shares_of(roster, member.seed, holders) for member in survivors},
        key_shares={member.name: shares_of(roster, member.mask, holders) for member in lost},
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data(), bits=st.sampled_from([16, 32]))
def test_the_masked_sum_of_any_survivors_is_their_plain_sum(data: st.DataObject, bits: int) -> None:
    ring, count = Ring(bits), data.draw(st.integers(4, 9), "sites")
    members = members_of(count)
    needed = threshold_of(count)
    masked_members = members[: data.draw(st.integers(needed, count), "masked")]
    order = data.draw(st.permutations(masked_members))
    survivors = sorted(order[: data.draw(st.integers(needed, len(order)), "survivors")], key=lambda m: m.name)
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    most = ring.largest // count
    values = {member.name: draws.integers(-most, most + 1, 50) for member in members}
    roster = roster_for(members)
    sent = [masked(roster, masked_members, m, ring.encode(values[m.name]), ring) for m in survivors]
    total = np.add.reduce(sent, dtype=ring.dtype)
    opened = unmasked(roster, opening_of(members, masked_members, survivors), total, ring)
    assert opened.tolist() == np.sum([values[m.name] for m in survivors], axis=0).tolist()


def test_below_the_threshold_nothing_opens() -> None:
    members = members_of(5)
    survivors = members[: threshold_of(5) - 1]
    with pytest.raises(MaskingError, match="4 shares are needed, 3 are there"):
        masks_on_sum(roster_for(members), opening_of(members, members, survivors))


@pytest.mark.parametrize(("sites", "wrong"), [(5, 1), (6, 1), (30, 4)])
@pytest.mark.parametrize("first", [0, 2])
def test_wrong_shares_among_more_than_enough_are_passed_over_and_their_holders_named(
    sites: int, wrong: int, first: int
) -> None:
    """Five sites of which four open: a single liar, anywhere in the order of names, does not keep a sum closed."""
    members, ring = members_of(sites), Ring(32)
    roster, honest = roster_for(members), opening_of(members, members, members)
    liars = {member.name for member in members[first : first + wrong]}
    spoiled = {
        of: {name: bytes(33) if name in liars else share for name, share in shares.items()}
        for of, shares in honest.seed_shares.items()
    }
    opening = Opening(honest.members, honest.survivors, spoiled, {})
    masks, named = opened_masks(roster, opening)
    assert named == tuple(sorted(liars))
    sent = [masked(roster, members, m, ring.encode(np.array([7, -9])), ring) for m in members]
    opened = ring.decode(add_masks(np.add.reduce(sent, dtype=ring.dtype), masks, ring))
    assert opened.tolist() == [7 * sites, -9 * sites]


def test_with_fewer_right_shares_than_the_threshold_the_sum_stays_closed() -> None:
    members = members_of(5)
    honest = opening_of(members, members, members)
    own = {**honest.seed_shares[members[0].name], members[1].name: bytes(33), members[3].name: bytes(33)}
    spoiled = Opening(honest.members, honest.survivors, {**honest.seed_shares, members[0].name: own}, {})
    with pytest.raises(MaskingError, match="do not give the secret"):
        masks_on_sum(roster_for(members), spoiled)


@pytest.mark.parametrize("bits", [16, 32])
def test_masked_words_are_uniform_on_the_whole_ring(bits: int) -> None:
    ring, members = Ring(bits), members_of(4)
    roster = roster_for(members)
    words = masked(roster, members, members[0], ring.encode(np.zeros(1 << 18, np.int64)), ring)
    for shift in range(0, bits, 8):
        counts = np.bincount((words >> ring.dtype.type(shift)).astype(np.uint8), minlength=256)
        expected = words.size / 256
        statistic = float(np.sum((counts - expected) ** 2) / expected)
        assert statistic < 255 + 6 * np.sqrt(2 * 255)  # six standard deviations of chi-square with 255 degrees


def test_no_two_vectors_share_a_mask_key() -> None:
    members = members_of(5)
    rosters = [roster_of([m.keys(number) for m in members]) for number in (1, 2)]
    names = [m.name for m in members]
    used = Counter(
        mask.key for roster in rosters for m in members for mask in masks_of_site(roster, names, m.name, m.seed, m.mask)
    )
    assert sorted(set(used.values())) == [1, 2]  # an own mask once; a pair's at its two ends and nowhere else
    assert sum(count == 1 for count in used.values()) == 2 * 5


def test_streams_may_be_applied_in_windows_of_any_size() -> None:
    ring = Ring(16)
    masks = [SignedMask(bytes([n]) * 32, 1 if n % 2 else -1) for n in range(3)]
    whole = add_masks(np.zeros(1_500_000, ring.dtype), masks, ring)
    parts, streams = np.zeros(1_500_000, ring.dtype), MaskStreams(masks, ring)
    for start, end in ((0, 3), (3, 700_001), (700_001, 1_500_000)):
        streams.apply(parts[start:end])
    assert np.array_equal(whole, parts)


def test_keys_do_not_show_in_a_log() -> None:
    assert "07" not in repr(SignedMask(b"\x07" * 32, 1))
