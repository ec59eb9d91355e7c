"""What of a study is shown to those who read and do not decide: no small count, and no note that follows from one.

Who decides has to see the figures that would leave. A clinician and an auditor do not: for them numbers are rounded
down to tens, so that two of them do not differ by one patient, and missing where fewer than ten patients or the
hospital's minimum are counted. What stands in a counted study's way is for the administrator alone.
"""

from collections.abc import Mapping
from typing import Any

from site_node.rounded_counts import in_tens

NUMBERS = ("training_patients", "held_out_patients")
BEFORE_DECIDED = ("counting", "awaiting")
FOR_WHO_DECIDES = "What it costs this hospital's patients at most"


def entry_for_readers(entry: Mapping[str, Any], least: int) -> dict[str, Any]:
    """Return a study of the list as a reader sees it. Pure."""
    shown = dict(entry)
    for name in NUMBERS:
        if name in shown:
            shown[name] = in_tens(shown[name], least)
    if shown["state"] in BEFORE_DECIDED:
        shown |= {"reason": None, "explanation": ""}  # what was counted stands in its way, or nothing does
    return shown


def page_for_readers(page: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's own page as a reader sees it: without this hospital's figures, and a digest of them. Pure."""
    summary = {title: own for title, own in page["summary"].items() if title != FOR_WHO_DECIDES}
    return {**{name: value for name, value in page.items() if name != "shown_digest"}, "summary": summary}
