"""The gate in a masked round: what it lets out, what it never does twice, and whom it does not believe."""

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from protocol.messages import (
    MAX_MESSAGE_BYTES,
    Reason,
    StudyClosed,
    TaskCancelled,
    TaskRefusal,
    UpdateNotice,
    parse_message,
)
from protocol.secure_aggregation.key_agreement import mask_key, own_mask_key, unseal
from protocol.secure_aggregation.masking import MaskStreams, SignedMask
from protocol.secure_aggregation.secret_sharing import join_shares
from protocol.secure_aggregation.vector import WEIGHT_DIGITS, weights_sum
from protocol.secure_messages import MaskingKeys, MaskingReveal, MaskingShares, SurvivorsSeen
from protocol.signing import SigningKey, read_unverified
from site_node.errors import SettingsError
from site_node.governance.egress import egress_entries, unsent
from site_node.governance.peers import fingerprint, load_peers, peers_path, pin_peer
from site_node.governance.records import open_records, set_paused
from site_node.sqlite import transaction
from tests.fakes.gated_site import GatedSite
from tests.fakes.masked_peers import EVERYBODY, OWN, PEERS, VALUES, MaskedPeers


def go_to_masked(peers: MaskedPeers) -> None:
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over()
    peers.say(peers.delivery())


def test_a_withdrawal_takes_back_this_site_s_part_in_opening_a_masked_sum(peers: MaskedPeers) -> None:
    """Fewer shares, consents and reveals only make the round fail; what was withdrawn must not help to open it."""
    go_to_masked(peers)
    peers.say(peers.survivors())
    peers.say(peers.proof())
    opening = {f"wardround.{kind}/1" for kind in ("masking-shares", "survivors-seen", "masking-reveal")}
    with closing(open_records(peers.site.paths)) as database:
        assert opening <= kinds_waiting(database)
        peers.site.decide(peers.study, "withdrawn")
        assert kinds_waiting(database) & (opening | {"wardround.update/1"}) == set()
    waiting = [
        parse_message(read_unverified(path.read_bytes())) for path in peers.site.paths.outbox.glob("*.dsse.json")
    ]
    assert not any(isinstance(m, MaskingShares | SurvivorsSeen | MaskingReveal | UpdateNotice) for m in waiting)


def kinds_waiting(database: sqlite3.Connection) -> set[str]:
    waiting = {number for number, _, _ in unsent(database)}
    return {entry["kind"] for entry in egress_entries(database) if entry["number"] in waiting}


def test_a_round_goes_from_keys_to_one_reveal(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors())
    peers.say(peers.proof())
    order = ["MaskingKeys", "MaskingShares", "UpdateNotice", "SurvivorsSeen", "MaskingReveal"]
    assert peers.kinds_sent() == order
    [notice] = peers.own(UpdateNotice)
    assert (notice.steps, notice.weight) == (["difference", "quantised", "masked"], 1.0)
    assert notice.payload_bytes == 2 * (len(VALUES) + WEIGHT_DIGITS)
    assert notice.privacy is not None
    [reveal] = peers.own(MaskingReveal)
    assert (sorted(reveal.seed_shares), reveal.key_shares) == (sorted(EVERYBODY), {})
    assert peers.secrets() == (None, None, None)


def test_the_vector_that_leaves_is_the_integers_under_exactly_the_agreed_masks(peers: MaskedPeers) -> None:
    peers.join()
    _, private, seed = peers.secrets()
    assert private is not None
    assert seed is not None
    peers.say(peers.roster_message())
    peers.hand_over()
    peers.say(peers.delivery())
    [path] = peers.site.paths.outbox.glob("*.payload")
    ring, roster = peers.terms.ring, peers.roster
    words = ring.from_bytes(path.read_bytes()).copy()
    assert not np.array_equal(ring.decode(words[WEIGHT_DIGITS:]), VALUES)
    masks = [SignedMask(own_mask_key(seed, roster, OWN), -1)]
    for name in PEERS:  # seen from the peers' side
        key = mask_key(peers.members[name].mask, roster, name, OWN)
        masks.append(SignedMask(key, -1 if name > OWN else 1))
    MaskStreams(masks, ring).apply(words)
    assert ring.decode(words[WEIGHT_DIGITS:]).tolist() == list(VALUES)
    assert weights_sum(words[:WEIGHT_DIGITS]) == 40


def test_nothing_is_masked_before_the_peers_shares_have_come(peers: MaskedPeers) -> None:
    peers.join()
    peers.hand_over()
    peers.site.sweep()
    peers.say(peers.roster_message())
    assert peers.own(UpdateNotice) == []
    assert list(peers.site.paths.candidates.iterdir()) != []
    peers.say(peers.delivery())
    assert len(peers.own(UpdateNotice)) == 1


def test_of_a_survivor_the_seed_is_revealed_and_of_a_lost_peer_the_mask_key_and_never_both(peers: MaskedPeers) -> None:
    there = tuple(name for name in EVERYBODY if name != "dora")
    go_to_masked(peers)
    peers.say(peers.survivors(there))
    peers.say(peers.proof(["bela", "clara", "emil", OWN], there))
    [reveal] = peers.own(MaskingReveal)
    assert sorted(reveal.seed_shares) == sorted(there)
    assert sorted(reveal.key_shares) == ["dora"]


def test_the_shares_that_a_site_seals_give_its_secrets_to_enough_peers_only(peers: MaskedPeers) -> None:
    peers.join()
    _, private, seed = peers.secrets()
    peers.say(peers.roster_message())
    [shares] = peers.own(MaskingShares)
    roster = peers.roster
    held = {
        name: unseal(peers.members[name].channel, roster, name, OWN, bytes.fromhex(shares.sealed[name]))
        for name in PEERS
    }
    points = {roster.point(name): content for name, content in held.items()}
    assert join_shares({x: content[:33] for x, content in points.items()}, 4) == seed
    assert join_shares({x: content[33:] for x, content in points.items()}, 4) == private
    assert roster.threshold == 4


def test_a_second_list_of_survivors_is_never_answered(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    fewer = tuple(name for name in EVERYBODY if name != "bela")
    peers.say(peers.survivors())
    peers.say(peers.survivors(fewer))
    assert len(peers.own(SurvivorsSeen)) == 1
    peers.say(peers.proof(["clara", "dora", "emil", OWN], fewer))
    peers.say(peers.proof())
    assert peers.own(MaskingReveal) == []  # the first proof was of another list: nothing more for this round
    assert peers.secrets() == (None, None, None)


def test_after_the_reveal_nothing_is_revealed_again(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    fewer = tuple(name for name in EVERYBODY if name != "bela")
    peers.say(peers.survivors())
    peers.say(peers.proof())
    for message in (peers.survivors(fewer), peers.proof(["clara", "dora", "emil", OWN], fewer), peers.delivery()):
        peers.say(message)
    peers.site.start()
    peers.site.sweep()
    assert len(peers.own(MaskingReveal)) == 1
    assert len(peers.own(SurvivorsSeen)) == 1


def test_the_database_itself_refuses_a_second_list_roster_or_secret(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors())
    database = open_records(peers.site.paths)
    for change in (
        "survivors = '[]'",
        "roster = x'00'",
        "delivery = x'00'",
        "channel_key = x'00'",
        "seed = x'00'",
        "own_shares = '[]'",
    ):
        with pytest.raises(sqlite3.IntegrityError), transaction(database):
            database.execute(f"UPDATE masking SET {change}")  # noqa: S608
    peers.say(peers.proof())
    for change in ("UPDATE masking SET phase = 'seen'", "DELETE FROM masking"):
        with pytest.raises(sqlite3.IntegrityError), transaction(database):
            database.execute(change)


def refusals(peers: MaskedPeers) -> list[Reason]:
    return [message.reason for message in peers.own(TaskRefusal)]


def test_a_roster_with_a_forged_or_unknown_member_is_refused_by_its_own_reason(tmp_path: Path) -> None:
    for number, spoil in enumerate(("forged", "unpinned", "another key")):
        peers = MaskedPeers(GatedSite.make(tmp_path / str(number)))
        peers.join()
        message = peers.roster_message()
        if spoil == "forged":
            peers.identities["clara"] = SigningKey.generate()
            message = peers.roster_message()
        else:
            lines = peers_path(peers.site.paths).read_text().splitlines()
            kept = [line for line in lines if not line.startswith("clara")]
            other = [] if spoil == "unpinned" else [f"clara: {SigningKey.generate().public.text}"]
            peers_path(peers.site.paths).write_text("\n".join([*kept, *other]) + "\n")
        peers.say(message)
        assert refusals(peers) == [Reason.UNKNOWN_PEER]
        assert peers.own(MaskingShares) == []
        assert peers.secrets() == (None, None, None)


def test_a_roster_without_us_or_with_other_keys_of_ours_or_too_small_or_too_large_is_refused(tmp_path: Path) -> None:
    def make(name: str) -> MaskedPeers:
        peers = MaskedPeers(GatedSite.make(tmp_path / name))
        peers.join()
        return peers

    without = make("without")
    without.say(without.roster_message(PEERS))
    replaced = make("replaced")
    own = replaced.keys(OWN).model_copy(update={"mask_key": "11" * 32})
    replaced.say(replaced.roster_message(st_anna=replaced.signed(OWN, own)))
    small = make("small")
    small.say(small.roster_message(("bela", "clara", OWN)))
    old = make("old")
    message = old.roster_message()
    old.number = 2
    old.members = {name: old.members[name] for name in PEERS}
    other = [old.signed(name, old.keys(name)) for name in PEERS]
    old.number = 1
    old.say(message.model_copy(update={"members": [*other, old.signed(OWN, old.keys(OWN))]}))
    large = MaskedPeers(GatedSite.make(tmp_path / "large"))
    more = ("fay", *PEERS)
    large.members["fay"], large.identities["fay"] = type(large.members["bela"]).named("fay"), SigningKey.generate()
    large.join()
    large.say(large.roster_message((*more, OWN)))
    for peers in (without, replaced, small, old, large):
        assert refusals(peers) == [Reason.BAD_TASK]
        assert peers.own(MaskingShares) == []


@pytest.mark.parametrize(
    "names",
    [PEERS, ("bela", "clara", OWN), ("bela", "clara", "dora", OWN, "zoe"), ("bela", "bela", "clara", "dora", OWN)],
    ids=["without-us", "below-the-threshold", "a-stranger", "one-twice"],
)
def test_a_list_of_survivors_that_is_not_of_this_round_is_not_signed(
    peers: MaskedPeers, names: tuple[str, ...]
) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors(names))
    assert peers.own(SurvivorsSeen) == []
    assert peers.secrets() == (None, None, None)


def test_a_proof_that_proves_nothing_reveals_nothing(tmp_path: Path) -> None:
    fewer = tuple(name for name in EVERYBODY if name != "bela")
    for number, signers in enumerate((PEERS[:3], ("bela", "bela", "bela", "bela"), PEERS)):
        peers = MaskedPeers(GatedSite.make(tmp_path / str(number)))
        go_to_masked(peers)
        peers.say(peers.survivors())
        if signers == PEERS:  # one of them saw another list: the hub shows two
            proof = peers.proof(PEERS[:3])
            proof = proof.model_copy(update={"seen": [*proof.seen, peers.seen("emil", fewer)]})
        else:
            proof = peers.proof(signers)
        peers.say(proof)
        assert peers.own(MaskingReveal) == []
        assert peers.secrets() == (None, None, None)


def test_a_peer_that_masked_with_others_stops_the_reveal(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors())
    proof = peers.proof(PEERS[:3])
    other = peers.seen("emil", EVERYBODY, members=(*EVERYBODY, "zoe"))
    peers.say(proof.model_copy(update={"seen": [*proof.seen, other]}))
    assert peers.own(MaskingReveal) == []


def test_a_forged_signature_under_a_proof_reveals_nothing(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors())
    true_key, peers.identities["emil"] = peers.identities["emil"], SigningKey.generate()
    proof = peers.proof()
    peers.identities["emil"] = true_key
    peers.say(proof)
    assert peers.own(MaskingReveal) == []


def test_a_share_that_does_not_open_is_left_out_and_the_others_are_revealed(peers: MaskedPeers) -> None:
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over()
    delivery = peers.delivery()
    spoiled = {**delivery.sealed, "dora": delivery.sealed["clara"]}
    peers.say(delivery.model_copy(update={"sealed": spoiled}))
    peers.say(peers.survivors())
    peers.say(peers.proof())
    [reveal] = peers.own(MaskingReveal)
    assert sorted(reveal.seed_shares) == sorted(name for name in EVERYBODY if name != "dora")


@pytest.mark.parametrize("value", [6554, -6554])
def test_an_integer_beyond_the_bound_never_leaves(peers: MaskedPeers, value: int) -> None:
    peers.join()
    peers.say(peers.roster_message())
    assert peers.terms.bound == 6553
    peers.hand_over([value, *VALUES[1:]])
    peers.say(peers.delivery())
    assert peers.own(UpdateNotice) == []
    assert refusals(peers) == [Reason.INTERNAL]
    assert peers.secrets() == (None, None, None)


def test_a_vector_of_another_length_never_leaves(peers: MaskedPeers) -> None:
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over(VALUES[:-1])
    peers.say(peers.delivery())
    assert peers.own(UpdateNotice) == []
    assert refusals(peers) == [Reason.INTERNAL]


@pytest.mark.parametrize("when", ["keyed", "shared", "masked", "seen"])
def test_an_ended_study_or_cancelled_task_erases_the_secrets_and_nothing_more_leaves(
    peers: MaskedPeers, when: str
) -> None:
    peers.join()
    if when != "keyed":
        peers.say(peers.roster_message())
    if when in ("masked", "seen"):
        peers.hand_over()
        peers.say(peers.delivery())
    if when == "seen":
        peers.say(peers.survivors())
    before = len(peers.site.sent())
    if when in ("keyed", "shared"):
        peers.say(TaskCancelled(task_id=peers.task.task_id, study_digest=peers.study.digest))
    else:
        peers.say(StudyClosed(study_digest=peers.study.digest, state="stopped"))
    peers.hand_over()
    for message in (peers.roster_message, peers.delivery, peers.survivors, peers.proof):
        peers.say(message())
    assert len(peers.site.sent()) == before
    assert peers.secrets() == (None, None, None)


def test_a_paused_site_says_nothing_in_a_masked_round_and_goes_on_afterwards(peers: MaskedPeers) -> None:
    peers.join()
    set_paused(open_records(peers.site.paths), True)
    peers.say(peers.roster_message())
    assert peers.own(MaskingShares) == []
    set_paused(open_records(peers.site.paths), False)
    peers.site.sweep()
    assert len(peers.own(MaskingShares)) == 1


def test_a_new_round_has_new_keys_and_erases_what_the_last_one_left(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    first, survivors = peers.keys(OWN), peers.survivors()
    peers.number = 2
    peers.site.give(peers.task)
    second = peers.own(MaskingKeys)[-1]
    assert {first.channel_key, first.mask_key}.isdisjoint({second.channel_key, second.mask_key})
    assert first.seed_commitment != second.seed_commitment
    peers.number = 1
    assert peers.secrets() == (None, None, None)
    peers.say(survivors)
    assert peers.own(SurvivorsSeen) == []


def test_keys_are_pinned_once_and_another_key_needs_a_person(tmp_path: Path) -> None:
    paths = GatedSite.make(tmp_path).paths
    one, other = SigningKey.generate().public, SigningKey.generate().public
    assert load_peers(paths) == {}
    pin_peer(paths, OWN, "north", one.text)
    pin_peer(paths, OWN, "north", one.text)
    with pytest.raises(SettingsError, match="Another key is pinned for north"):
        pin_peer(paths, OWN, "north", other.text)
    with pytest.raises(SettingsError, match="key that was given is none") as refused:
        pin_peer(paths, OWN, "south", "not a key")
    assert peers_path(paths).name not in str(refused.value)  # the file is not to blame
    with pytest.raises(SettingsError, match="this hospital itself"):
        pin_peer(paths, OWN, OWN, other.text)
    with pytest.raises(SettingsError, match="name that no site can have"):
        pin_peer(paths, OWN, "No Site", one.text)
    assert load_peers(paths) == {"north": one}
    groups = fingerprint(one).split(" ")
    assert len(groups) == 16
    assert "sha256:" + "".join(groups) == one.key_id


def test_a_damaged_list_of_peers_decides_nothing(peers: MaskedPeers) -> None:
    peers.join()
    peers_path(peers.site.paths).write_text("bela: [nonsense\n")
    peers.say(peers.roster_message())
    assert (peers.own(MaskingShares), refusals(peers)) == ([], [])
    peers.pin()
    peers.site.sweep()
    assert len(peers.own(MaskingShares)) == 1


def test_secrets_are_in_no_message_of_the_site(peers: MaskedPeers) -> None:
    peers.join()
    hidden = [secret.hex().encode() for secret in peers.secrets() if secret is not None]
    peers.say(peers.roster_message())
    peers.hand_over()
    for message in (peers.delivery, peers.survivors, peers.proof):
        peers.say(message())
    bodies = [message.canonical_bytes() for message in peers.site.sent()]
    assert len(hidden) == 3
    assert not any(secret in body for secret in hidden for body in bodies)
    assert all(len(body) < MAX_MESSAGE_BYTES for body in bodies)
    assert all(a != b for a, b in pairwise(bodies))
