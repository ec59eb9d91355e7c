"""What a simulation says of a part that fails."""

import pytest

from compose.plain_logs import plain_line


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"site": "north", "event": "order failed", "error": "No room.", "where": ["a:1"]},
            "north: order failed: No room.",
        ),
        ({"site": "north", "event": "candidate_refused", "why": "Two\nlines."}, "north: candidate refused: Two lines."),
        ({"event": "aggregation failed", "study": "sha256:0"}, "hub: aggregation failed"),
    ],
)
def test_a_failure_is_one_line_with_who_what_and_why(entry: dict[str, object], line: str) -> None:
    assert plain_line(None, "error", dict(entry)) == line
