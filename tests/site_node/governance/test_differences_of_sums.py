"""Two opened sums over the same weights, with one site less, would be that site's part: the gate helps with one."""

import pytest

from protocol.messages import Reason, TaskRefusal
from protocol.secure_messages import MaskedKind, MaskingReveal
from protocol.study import StudySpec
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of
from tests.fakes.masked_peers import MaskedPeers

OPEN = {"privacy": {"epsilon": None, "spare_tasks": 1}}
NOISED = {"evaluation": {"noise_epsilon": 0.5}}


def study_with(**terms: object) -> StudySpec:
    return study_of(
        participants={"minimum_sites": 4, "training_patients": 100},
        transport={"upload": []},
        secure_aggregation={"method": "masking", "maximum_sites": 5, "maximum_weight": 100},
        **terms,
    )


def first_round(site: GatedSite, study: StudySpec, kind: MaskedKind, *, opened: bool) -> MaskedPeers:
    site.with_policy(PERMISSIVE_POLICY + "dp_required: false\nmaximum_epsilon: 1000\nlifetime_epsilon: 5000\n")
    peers = MaskedPeers(site, study, task_kind=kind)
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over() if kind == "train" else peers.hand_over_counts()
    peers.say(peers.delivery())
    peers.say(peers.survivors())
    if opened:
        peers.say(peers.proof())
    assert len(peers.own(MaskingReveal)) == opened
    return peers


def refusals_of_second(peers: MaskedPeers, *, same_weights: bool) -> list[Reason]:
    first = peers.task
    task = MaskedPeers(peers.site, peers.study, 2, task_kind=peers.task_kind).task
    assert first.base is not None
    assert task.base is not None
    weights = first.base.weights_digest if same_weights else "sha256:" + "5" * 64
    number = 2 if peers.task_kind == "evaluate" else 0
    base = task.base.model_copy(update={"weights_digest": weights, "number": number})
    if peers.task_kind == "train" and not same_weights:
        base = base.model_copy(update={"number": 1})
    peers.say(task.model_copy(update={"base": base, "sequence": 2}))
    return [refusal.reason for refusal in peers.own(TaskRefusal)]


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_the_same_weights_are_not_answered_again_once_their_sum_was_opened(site: GatedSite, kind: MaskedKind) -> None:
    peers = first_round(site, study_with(**OPEN), kind, opened=True)
    assert refusals_of_second(peers, same_weights=True) == [Reason.ROUND_ALREADY_ANSWERED]


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_other_weights_are_answered(site: GatedSite, kind: MaskedKind) -> None:
    peers = first_round(site, study_with(**OPEN), kind, opened=True)
    assert refusals_of_second(peers, same_weights=False) == []


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_after_a_round_whose_sum_stayed_closed_the_same_weights_are_answered(site: GatedSite, kind: MaskedKind) -> None:
    peers = first_round(site, study_with(**OPEN), kind, opened=False)
    assert refusals_of_second(peers, same_weights=True) == []
    peers.say(peers.proof())  # the old round's, too late
    assert peers.own(MaskingReveal) == []


def test_noised_counts_of_the_same_weights_are_answered_and_charged_each_time(site: GatedSite) -> None:
    peers = first_round(site, study_with(**OPEN, **NOISED), "evaluate", opened=True)
    assert refusals_of_second(peers, same_weights=True) == []
