"""How small the crowd of a masked round may be, and what of its secrets is left on the disk."""

import pytest

from protocol.messages import Reason, TaskRefusal, UpdateNotice
from protocol.secure_messages import MaskedKind, MaskingReveal, MaskingShares, SurvivorsSeen
from protocol.study import StudySpec
from site_node.governance.masking_records import MaskedRound, masked_round
from site_node.governance.records import open_records
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.masked_peers import EVERYBODY, MaskedPeers


def study_for(sites: int, method: str = "masking") -> StudySpec:
    return study_of(
        participants={"minimum_sites": sites, "training_patients": 100},
        transport={"upload": []},
        secure_aggregation={"method": method, "maximum_sites": 32, "maximum_weight": 100},
    )


@pytest.mark.parametrize("task_kind", ["train", "evaluate"])
@pytest.mark.parametrize("method", ["masking", "homomorphic"])
@pytest.mark.parametrize(("sites", "taken"), [(7, True), (8, False), (32, False)])
def test_a_roster_smaller_than_the_crowd_that_was_approved_is_refused(
    site: GatedSite, method: str, sites: int, taken: bool, task_kind: MaskedKind
) -> None:
    peers = MaskedPeers(site, study_for(sites, method), task_kind=task_kind)  # five sites: the threshold of seven
    peers.join()
    peers.say(peers.roster_message())
    assert len(peers.own(MaskingShares)) == taken
    assert [message.reason for message in peers.own(TaskRefusal)] == [Reason.BAD_TASK] * (not taken)


def test_the_smallest_crowd_opens_its_sum_if_everybody_survives(site: GatedSite) -> None:
    peers = MaskedPeers(site, study_for(7))
    peers.join()
    peers.say(peers.roster_message())
    peers.hand_over()
    peers.say(peers.delivery())
    peers.say(peers.survivors())
    peers.say(peers.proof())
    assert len(peers.own(MaskingReveal)) == 1


@pytest.mark.parametrize("task_kind", ["train", "evaluate"])
@pytest.mark.parametrize(("sites", "signed"), [(5, True), (6, False)])
def test_four_of_five_survivors_are_signed_only_if_the_study_is_of_no_larger_crowd(
    site: GatedSite, sites: int, signed: bool, task_kind: MaskedKind
) -> None:
    peers = MaskedPeers(site, study_for(sites), task_kind=task_kind)
    peers.join()
    peers.say(peers.roster_message())
    if task_kind == "train":
        peers.hand_over()
    else:
        peers.hand_over_counts()
    peers.say(peers.delivery())
    assert peers.roster.threshold == 4
    peers.say(peers.survivors(tuple(name for name in EVERYBODY if name != "dora")))
    assert len(peers.own(SurvivorsSeen)) == signed


def on_disk(site: GatedSite, secret: bytes | None) -> list[str]:
    assert secret is not None
    return [path.name for path in site.paths.gate.glob("gate.sqlite*") if secret in path.read_bytes()]


def kept(peers: MaskedPeers, number: int = 1) -> MaskedRound:
    known = masked_round(open_records(peers.site.paths), peers.study.digest, number)
    assert known is not None
    return known


def test_what_made_the_masks_is_on_no_page_of_the_disk_once_the_vector_is_recorded(site: GatedSite) -> None:
    peers = MaskedPeers(site)
    peers.join()
    before = kept(peers)
    peers.say(peers.roster_message())
    assert on_disk(site, before.seed)
    assert on_disk(site, before.mask_key)
    peers.hand_over()
    peers.say(peers.delivery())
    assert len(peers.own(UpdateNotice)) == 1
    assert on_disk(site, before.seed) == on_disk(site, before.mask_key) == []
    assert on_disk(site, before.channel_key)  # the reveal needs it
    peers.say(peers.survivors())
    peers.say(peers.proof())
    assert on_disk(site, before.channel_key) == []


def test_a_new_round_writes_over_the_secrets_of_the_one_it_ends(site: GatedSite) -> None:
    peers = MaskedPeers(site)
    peers.join()
    first = kept(peers)
    peers.number = 2
    site.give(peers.task)
    secrets = (first.seed, first.mask_key, first.channel_key)
    assert [on_disk(site, secret) for secret in secrets] == [[], [], []]
    assert on_disk(site, kept(peers, 2).seed)
