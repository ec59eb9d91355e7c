"""The bytes of the messages of secure aggregation: what sites sign does not change with how the code is cut."""

from typing import Any

import pytest

from protocol.message import Message
from protocol.messages import parse_message
from protocol.secure_messages import (
    SECURE_HUB_TO_SITE,
    SECURE_SITE_TO_HUB,
    MaskedHistograms,
    MaskingDelivery,
    MaskingKeys,
    MaskingProof,
    MaskingReveal,
    MaskingRoster,
    MaskingShares,
    MaskingSurvivors,
    SurvivorsSeen,
)

ROUND: dict[str, Any] = {"study_digest": "sha256:" + "1" * 64, "round": 3}
SPOKEN: dict[str, Any] = {**ROUND, "site": "anna", "task_id": "tiny.r3.anna.train"}
ROSTER: dict[str, Any] = {"roster_digest": "sha256:" + "2" * 64}
SEALED: dict[str, Any] = {"bela": "3" * 188}

MESSAGES: list[tuple[Message, str]] = [
    (
        MaskingKeys(**SPOKEN, channel_key="4" * 64, mask_key="5" * 64, seed_commitment="6" * 64),
        "sha256:e71d0e0873ae49abdf3cef7c18be57f46788b0db7de33dabfe7c0a61512327fc",
    ),
    (
        MaskingRoster(**ROUND, members=["a", "b"]),
        "sha256:2da9869abf0defa88c68cb5b16581d9b324d148a2a6a03647e0034678c14e3e4",
    ),
    (
        MaskingShares(**SPOKEN, **ROSTER, sealed=SEALED),
        "sha256:e8db58b5e812b56a022d5c268ef20e3a2e05aec3273086b2042c7f821dc9bb80",
    ),
    (
        MaskingDelivery(**ROUND, **ROSTER, sealed=SEALED),
        "sha256:1821ada62a012544806d0c04aa4ec9e8b5db9639e148c8851042e627e8a2f41c",
    ),
    (
        MaskingSurvivors(**ROUND, **ROSTER, survivors=["anna", "bela"]),
        "sha256:ff7c0a264e5730412fa5415614930d87e2ac387f94bceee3c939a47e47a54a0b",
    ),
    (
        SurvivorsSeen(
            **SPOKEN,
            **ROSTER,
            task_kind="evaluate",
            members_digest="sha256:" + "7" * 64,
            survivors_digest="sha256:" + "8" * 64,
        ),
        "sha256:56868888b9c44281920153d2563196458aea9dbcea7775c4c11ab97c4a450965",
    ),
    (
        MaskingProof(**ROUND, **ROSTER, seen=["c"]),
        "sha256:1eb9ddd6e32ca018181770116a19c9c58de53968e9517d6ecffa0d42c39367bd",
    ),
    (
        MaskingReveal(**SPOKEN, **ROSTER, seed_shares={"anna": "9" * 66}, key_shares={"bela": "a" * 66}),
        "sha256:0705a347d1ad2e3bf06b71bf7b154f0548cc6f887b67057ea1185dc4e00379d8",
    ),
    (
        MaskedHistograms(**SPOKEN, **ROSTER, task_digest="sha256:" + "b" * 64, noise_epsilon=0.5, words=["c" * 512]),
        "sha256:9b488f6d82ee41002b870fb1a1c55ac2019bae0e7dd3eb92cb1e880b06d4ec4d",
    ),
]


@pytest.mark.parametrize(("message", "digest"), MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_has_the_bytes_that_sites_have_signed_since_its_first_version(message: Message, digest: str) -> None:
    assert message.digest == digest
    assert parse_message(message.canonical_bytes()) == message


def test_every_message_of_secure_aggregation_is_looked_at() -> None:
    assert {type(message) for message, _ in MESSAGES} == {*SECURE_HUB_TO_SITE, *SECURE_SITE_TO_HUB}


def test_held_out_counts_are_of_a_task_to_evaluate_and_all_else_of_training_unless_it_says_so() -> None:
    kinds = {type(message).__name__: type(message).model_fields["task_kind"].default for message, _ in MESSAGES}
    assert [name for name, kind in kinds.items() if kind != "train"] == ["MaskedHistograms"]
