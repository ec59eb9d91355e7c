"""A round's key comes from all its sites, and from nothing less."""

import pytest

from protocol.digest import digest_of
from protocol.errors import EncryptionError
from protocol.homomorphic.scheme import key_id_of
from protocol.homomorphic.shared_key import CONTRIBUTION_BYTES, new_contribution, shared_secret

STUDY, ROSTER = digest_of("study"), digest_of("roster")
PARTS = {name: new_contribution() for name in ("alder", "birch", "cedar", "elm")}


def test_every_site_derives_the_same_key_in_whatever_order_contributions_came() -> None:
    backwards = dict(reversed(PARTS.items()))
    assert shared_secret(STUDY, 1, ROSTER, PARTS) == shared_secret(STUDY, 1, ROSTER, backwards)
    assert key_id_of(shared_secret(STUDY, 1, ROSTER, PARTS)) == key_id_of(shared_secret(STUDY, 1, ROSTER, backwards))


@pytest.mark.parametrize("name", sorted(PARTS))
def test_one_bit_of_any_contribution_changes_the_key(name: str) -> None:
    changed = {**PARTS, name: bytes([PARTS[name][0] ^ 1]) + PARTS[name][1:]}
    assert shared_secret(STUDY, 1, ROSTER, changed) != shared_secret(STUDY, 1, ROSTER, PARTS)


def test_another_study_round_roster_or_member_makes_another_key() -> None:
    exchanged = {**PARTS, "alder": PARTS["birch"], "birch": PARTS["alder"]}
    fifth = {**PARTS, "fir": new_contribution()}
    renamed = {("fir" if name == "elm" else name): part for name, part in PARTS.items()}
    keys = [
        shared_secret(STUDY, 1, ROSTER, PARTS),
        shared_secret(digest_of("another"), 1, ROSTER, PARTS),
        shared_secret(STUDY, 2, ROSTER, PARTS),
        shared_secret(STUDY, 1, digest_of("another"), PARTS),
        *(shared_secret(STUDY, 1, ROSTER, parts) for parts in (exchanged, fifth, renamed)),
    ]
    assert len({key.raw for key in keys}) == len(keys)


def test_fewer_than_four_sites_make_no_key() -> None:
    three = {name: PARTS[name] for name in sorted(PARTS)[:3]}
    with pytest.raises(EncryptionError, match="4 contributions"):
        shared_secret(STUDY, 1, ROSTER, three)


@pytest.mark.parametrize("size", [0, CONTRIBUTION_BYTES - 1, CONTRIBUTION_BYTES + 1])
def test_a_contribution_of_another_length_makes_no_key(size: int) -> None:
    with pytest.raises(EncryptionError, match="66 bytes"):
        shared_secret(STUDY, 1, ROSTER, {**PARTS, "elm": bytes(size)})


def test_contributions_are_drawn_anew() -> None:
    assert len({new_contribution() for _ in range(100)}) == 100
