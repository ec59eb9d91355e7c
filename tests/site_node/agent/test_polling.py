"""When an agent's waits end: each at another moment, and before the hub would end them."""

import random

from hub.api.mailbox import LONGEST_WAIT_SECONDS
from site_node.agent.polling import wait_seconds


def test_no_wait_is_longer_than_the_hub_allows() -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    assert all(10 < wait_seconds(chance) < LONGEST_WAIT_SECONDS for _ in range(1000))


def test_sites_that_were_woken_together_come_back_spread_over_seconds() -> None:
    waits = sorted(wait_seconds(random.Random(seed)) for seed in range(1000))  # noqa: S311 - no secret
    in_a_second = max(sum(start <= wait < start + 1 for wait in waits) for start in waits)
    assert in_a_second < 200
