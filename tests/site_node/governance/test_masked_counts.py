"""The gate and held-out counts under masks: what it lets out, and what a hub cannot make it say in clear."""

from typing import Any

import numpy as np
import pytest

from protocol.errors import MaskingError
from protocol.messages import EvaluationReport, Reason, TaskKind, TaskRefusal
from protocol.secure_aggregation.histograms import BOUND, RING, masked_words, words_of
from protocol.secure_aggregation.key_agreement import mask_key, own_mask_key
from protocol.secure_aggregation.masking import SignedMask, add_masks
from protocol.secure_messages import MaskedHistograms, MaskingReveal
from site_node.governance.masking_records import masked_round
from site_node.governance.peers import write_peers
from site_node.governance.records import open_records
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.masked_peers import OWN, PEERS, MaskedPeers


@pytest.fixture
def peers(site: GatedSite) -> MaskedPeers:
    return MaskedPeers(site, task_kind="evaluate")


def go_to_masked(peers: MaskedPeers) -> None:
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over_counts()
    peers.say(peers.delivery())


def test_what_leaves_is_the_counts_under_every_mask_and_nothing_else(peers: MaskedPeers) -> None:
    peers.join()
    known = masked_round(open_records(peers.site.paths), peers.study.digest, 1, "evaluate")
    assert known is not None
    peers.say(peers.roster_message())
    peers.hand_over_counts()
    peers.site.sweep()
    assert peers.own(MaskedHistograms) == []  # before the peers' shares have come
    peers.say(peers.delivery())
    [vector] = peers.own(MaskedHistograms)
    assert peers.own(EvaluationReport) == []
    roster = peers.roster
    assert vector.roster_digest == roster.digest
    assert known.seed is not None and known.mask_key is not None  # noqa: PT018 - for the type checker
    pairs = {peer: mask_key(known.mask_key, roster, OWN, peer) for peer in PEERS}
    masks = [SignedMask(own_mask_key(known.seed, roster, OWN), -1)]
    masks += [SignedMask(key, -1 if peer > OWN else 1) for peer, key in pairs.items()]
    found = add_masks(words_of(vector.words), masks, RING)
    plain = [side for split in ("test", "validation") for side in peers.counts[split].dense()]
    assert np.array_equal(RING.decode(found), np.concatenate(plain))


def test_a_hub_that_trained_under_masks_is_told_no_count_in_clear(peers: MaskedPeers) -> None:
    """No roster, no masks: the counts wait, whatever the hub asks, and a refused round ends them."""
    peers.join()
    peers.hand_over_counts()
    peers.site.sweep()
    peers.say(peers.roster_message(names=("bela", "clara", OWN)))  # too few to hide among
    assert peers.own(EvaluationReport) == peers.own(MaskedHistograms) == []
    assert [refusal.reason for refusal in peers.own(TaskRefusal)] == [Reason.BAD_TASK]


SUMMED: dict[str, dict[str, Any]] = {
    "encrypted updates": {
        "secure_aggregation": {"method": "homomorphic", "maximum_sites": 8, "maximum_weight": 100},
        "transport": {"upload": []},
    },
    "updates in clear": {"evaluation": {"sum_under_masks": True}},
}


@pytest.mark.parametrize("terms", sorted(SUMMED))
def test_counts_leave_under_masks_wherever_the_study_sums_them(site: GatedSite, terms: str) -> None:
    study = study_of(participants={"minimum_sites": 4, "training_patients": 100}, **SUMMED[terms])
    peers = MaskedPeers(site, study, task_kind="evaluate")
    go_to_masked(peers)
    peers.say(peers.survivors())
    peers.say(peers.proof())
    assert len(peers.own(MaskedHistograms)) == len(peers.own(MaskingReveal)) == 1
    assert peers.own(EvaluationReport) == []
    assert peers.secrets() == (None, None, None)


@pytest.mark.parametrize("terms", sorted(SUMMED))
def test_where_a_peer_is_not_pinned_nothing_is_said_of_held_out_patients(site: GatedSite, terms: str) -> None:
    study = study_of(participants={"minimum_sites": 4, "training_patients": 100}, **SUMMED[terms])
    peers = MaskedPeers(site, study, task_kind="evaluate")
    peers.join()
    write_peers(site.paths, {})
    peers.say(peers.roster_message())
    peers.hand_over_counts()
    peers.site.sweep()
    assert peers.own(MaskedHistograms) == peers.own(EvaluationReport) == []
    assert [refusal.reason for refusal in peers.own(TaskRefusal)] == [Reason.UNKNOWN_PEER]


def test_keys_of_training_do_not_serve_for_counts(peers: MaskedPeers) -> None:
    peers.join()
    strangers = [peers.keys(name).model_copy(update={"task_kind": "train"}) for name in PEERS]
    replaced = {keys.site: peers.signed(keys.site, keys) for keys in strangers}
    peers.say(peers.roster_message(**replaced))
    assert [refusal.reason for refusal in peers.own(TaskRefusal)] == [Reason.BAD_TASK]


@pytest.mark.parametrize("revealed", [True, False])
def test_the_next_round_s_training_has_masks_of_its_own_and_ends_those_of_counts(
    peers: MaskedPeers, revealed: bool
) -> None:
    go_to_masked(peers)
    peers.say(peers.survivors())
    if revealed:
        peers.say(peers.proof())
    training = MaskedPeers(peers.site, peers.study, 2, members=peers.members, identities=peers.identities)
    training.site.give(training.task)
    training.say(training.roster_message())
    training.hand_over()
    for message in (training.delivery, training.survivors, training.proof):
        training.say(message())
    peers.say(peers.proof())
    expected = [(1, "evaluate"), (2, "train")] if revealed else [(2, "train")]
    assert [(r.round, r.task_kind) for r in peers.own(MaskingReveal)] == expected
    known = masked_round(open_records(peers.site.paths), peers.study.digest, 1, "evaluate")
    assert known is not None
    assert (known.phase, known.channel_key, known.seed) == ("revealed" if revealed else "ended", None, None)


@pytest.mark.parametrize("fault", ["a split is missing", "more patients than were approved"])
def test_counts_are_checked_before_they_are_masked(peers: MaskedPeers, fault: str) -> None:
    peers.join()
    peers.say(peers.roster_message())
    if fault == "a split is missing":
        peers.hand_over_counts(splits=["validation"])
    else:
        peers.hand_over_counts(patients=11)  # in each of two splits; 20 patients are held out
    peers.say(peers.delivery())
    assert peers.own(MaskedHistograms) == []
    assert len(peers.own(TaskRefusal)) == 1
    assert masked_round(open_records(peers.site.paths), peers.study.digest, 1, "evaluate") is not None


def test_one_answer_is_given_for_a_version(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    again = peers.site.task(peers.study, 1, TaskKind.EVALUATE, task_id="tiny-again", sequence=2)
    peers.say(again)
    assert len(peers.own(MaskedHistograms)) == 1
    assert [refusal.reason for refusal in peers.own(TaskRefusal)] == [Reason.ROUND_ALREADY_ANSWERED]


def test_a_count_beyond_the_bound_is_not_masked(peers: MaskedPeers) -> None:
    peers.join()
    peers.hand_over_counts()
    many = {s: h.model_copy(update={"positive": [(0, BOUND + 1)]}) for s, h in peers.counts.items()}
    with pytest.raises(MaskingError, match="beyond"):
        masked_words(peers.study, many, [])
