"""The gate on a study with shared noise: what it charges, and without how many survivors it does not open a sum."""

from typing import Any

import pytest

from protocol.messages import UpdateNotice
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.secure_messages import MaskingReveal, SurvivorsSeen
from protocol.study import StudySpec
from site_node.governance.policy import Policy, objection_to
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.masked_peers import EVERYBODY, OWN, MaskedPeers


def shared_study(**privacy: Any) -> StudySpec:
    return study_of(
        training={"local_steps": 1, "sampling_rate": 0.2},
        participants={"minimum_sites": 6, "training_patients": 100},
        privacy={"epsilon": 4.0, "delta": 1e-4, "mechanism": "shared-noise"} | privacy,
        transport={"upload": []},
        secure_aggregation={"method": "masking", "maximum_sites": 6, "maximum_weight": 100},
    )


@pytest.fixture
def peers(site: GatedSite) -> MaskedPeers:
    """Five of the study's six sites: one was lost before the roster, so that four would open it."""
    opened = MaskedPeers(site, study=shared_study())
    opened.join()
    opened.say(opened.roster_message())
    opened.hand_over()
    opened.say(opened.delivery())
    return opened


def test_the_notice_tells_the_steps_and_the_charge_of_the_shared_mechanism(peers: MaskedPeers) -> None:
    [notice] = peers.own(UpdateNotice)
    assert notice.steps == ["gradient", "skellam", "masked"]
    assert notice.privacy is not None
    once = training_event(peers.study, noise_multiplier_of(peers.study) or 0.0, 1)
    assert once.mechanism == "poisson-skellam"
    assert notice.privacy.epsilon == epsilon_of([once], peers.study.privacy.delta)


def test_fewer_survivors_than_the_noise_counts_on_are_not_signed_though_they_could_open_the_sum(
    peers: MaskedPeers,
) -> None:
    assert peers.roster.threshold == 4
    peers.say(peers.survivors(("bela", "clara", "dora", OWN)))
    assert peers.own(SurvivorsSeen) == []


def test_as_many_survivors_as_the_noise_counts_on_are(peers: MaskedPeers) -> None:
    peers.say(peers.survivors(EVERYBODY))  # five, the threshold of six
    peers.say(peers.proof())
    assert len(peers.own(SurvivorsSeen)) == len(peers.own(MaskingReveal)) == 1


def test_noise_that_does_not_reach_the_target_is_refused_by_the_gates_own_accounting() -> None:
    study = shared_study()
    noise = noise_multiplier_of(study) or 0.0
    assert objection_to(Policy(), study, noise) is None
    assert objection_to(Policy(), study, 0.9 * noise) is not None
    assert objection_to(Policy(mechanisms=["dp-sgd"]), study, noise) is not None


def test_a_hospital_says_on_how_many_of_the_others_a_study_may_count_at_most() -> None:
    study = shared_study(honest_fraction=0.95)
    objection = objection_to(Policy(), study, noise_multiplier_of(study))
    assert objection is not None
    assert objection.sentence == "privacy.honest_fraction 0.95 is above `maximum_honest_fraction` 0.9."
    assert objection_to(Policy(maximum_honest_fraction=0.95), study, noise_multiplier_of(study)) is None
