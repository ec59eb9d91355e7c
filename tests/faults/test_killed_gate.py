"""A gate that is killed again and again, at moments that nobody chose, in the middle of a masked round."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from protocol.message import Message
from protocol.messages import UpdateNotice
from protocol.secure_messages import MaskingKeys, MaskingReveal, MaskingShares, SurvivorsSeen
from site_node.governance.gate import Gate
from site_node.governance.masking_records import masked_round
from site_node.governance.records import open_records
from tests.fakes.gated_site import GatedSite
from tests.fakes.masked_peers import MaskedPeers

KILLS = 6
LONGEST_LIFE_SECONDS = 0.08


def live_and_be_killed(site: GatedSite, after_seconds: float) -> None:
    """Run the gate in a process of its own and kill it."""
    child = os.fork()
    if child == 0:
        try:
            gate = Gate(site.settings, lambda: site.now)
            while True:
                gate.sweep()
        finally:
            os._exit(1)
    time.sleep(after_seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("seed", range(4))
def test_whenever_it_is_killed_each_message_is_made_once_and_never_changes(tmp_path: Path, seed: int) -> None:
    site, chance = GatedSite.make(tmp_path), random.Random(seed)  # noqa: S311 - moments, not secrets
    peers = MaskedPeers(site)
    peers.pin()
    site.join(peers.study)
    site.gate.close()
    site.post(peers.task)
    kinds: tuple[type[Message], ...] = (MaskingKeys, MaskingShares, UpdateNotice, SurvivorsSeen, MaskingReveal)
    payloads = set()
    for kind, message in zip(
        kinds, (None, peers.roster_message, peers.delivery, peers.survivors, peers.proof), strict=True
    ):
        if kind is UpdateNotice:
            peers.hand_over()
        if message is not None:
            site.post(message())
        for _ in range(KILLS):
            live_and_be_killed(site, chance.uniform(0, LONGEST_LIFE_SECONDS))
            site.look()  # an envelope that was seen once keeps its bytes
            payloads |= {path.read_bytes() for path in site.paths.outbox.glob("*.payload")}
        site.start()
        site.sweep()
        site.gate.close()
        assert len(peers.own(kind)) == 1
        payloads |= {path.read_bytes() for path in site.paths.outbox.glob("*.payload")}
    assert len(payloads) == 1, "one mask covered two vectors"
    known = masked_round(open_records(site.paths), peers.study.digest, 1)
    assert known is not None
    assert (known.phase.value, known.seed, known.channel_key) == ("revealed", None, None)
