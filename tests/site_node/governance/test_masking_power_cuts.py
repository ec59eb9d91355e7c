"""A masked round through a power cut at each of its steps: one masked vector, one reveal, whatever was cut when."""

import shutil
from collections.abc import Callable

import pytest

from protocol.secure_messages import MaskedKind
from tests.fakes.masked_peers import MaskedPeers
from tests.fakes.power_cuts import PowerCutError

STEPS = (
    "mail read",
    "task decided",
    "shares made",
    "masking advanced",
    "candidate read",
    "payload kept",
    "vector masked",
    "output recorded",
    "reveal made",
    "outbox filled",
)


@pytest.mark.parametrize("other_values", [False, True], ids=["same-candidate", "another-candidate"])
@pytest.mark.parametrize("passed", [0, 1, 2])
@pytest.mark.parametrize(
    ("task_kind", "step"),
    [("train", step) for step in STEPS] + [("evaluate", step) for step in STEPS if step != "payload kept"],
)
def test_a_power_cut_anywhere_masks_once_and_reveals_once(
    peers: MaskedPeers, task_kind: MaskedKind, step: str, passed: int, other_values: bool
) -> None:
    peers.task_kind = task_kind
    site, left = peers.site, [passed]
    peers.pin()
    site.join(peers.study)

    def cut(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] < 0:
                site.checkpoint = lambda _: None
                raise PowerCutError

    def through(action: Callable[[], None]) -> None:
        try:
            action()
        except PowerCutError:
            site.start()
            if other_values and not peers.own(peers.answer) and any(site.paths.candidates.iterdir()):
                shutil.rmtree(site.paths.candidates / peers.task.task_id)
                peers.hand_over_any(other=True)
            site.sweep()

    site.checkpoint = cut
    site.post(peers.task)
    through(site.sweep)
    for message in (peers.roster_message, peers.delivery, peers.survivors, peers.proof):
        if message == peers.delivery:
            peers.hand_over_any()
        site.post(message())
        through(site.sweep)
        site.receive_all()
        through(site.sweep)
    site.sweep()
    assert passed or left[0] < 0, "the process was never ended"
    order = ["MaskingKeys", "MaskingShares", peers.answer.__name__, "SurvivorsSeen", "MaskingReveal"]
    assert peers.kinds_sent() == order
    assert peers.secrets() == (None, None, None)
