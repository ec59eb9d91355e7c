"""Whether a round has enough updates for a robust joining. Pure."""

from hub.aggregation.gathering import Gathered
from hub.errors import AggregationError


def check_enough(name: str, gathered: Gathered, needed: int) -> None:
    """Check that there are so many updates.

    Raises: AggregationError if there are fewer, with the remedy.
    """
    found = len(gathered.updates)
    if found < needed:
        raise AggregationError(
            f"Expected at least {needed} updates for {name!r} to tell wild ones from others, {found} came.",
            "Write a study with more hospitals that train, or spare_tasks; or lower strategy.wild_sites.",
        )
