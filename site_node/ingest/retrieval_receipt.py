"""What a run of fetching did, for people and for scripts: numbers, and our own short number for each imaging study.

Study instance UIDs and accession numbers are in it only where an administrator asks for them. The file that is kept
beside the journal has none.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from site_node.ingest.retrieval_journal import Entry
from site_node.ingest.retrieving import Ended

SCHEMA = "wardround.retrieval-receipt/1"
EXIT_STATUS = {"complete": 0, "some-failed": 3, "refused": 1, "query-not-answered": 1}
RESUMABLE = 4
MOST_LINES = 50
NOTHING = "The PACS has nothing of what is wanted."
SAID = {
    "complete": "All of it is here.",
    "some-failed": "Some imaging studies could not be fetched.",
    "stopped": "Stopped.",
    "outside-hours": "The hours of the day are over.",
    "pacs-away": "The PACS stayed away.",
    "refused": "The PACS does not let us in.",
    "disk-full": "The disk is full.",
    "query-not-answered": "The PACS did not answer the query.",
}


@dataclass(frozen=True)
class Receipt:
    """One run and its imaging studies."""

    ended: Ended
    entries: Sequence[Entry]

    @property
    def exit_status(self) -> int:
        """Return 0 if all is here, 3 if some could not be fetched, 4 if running it again goes on, 1 for a fault."""
        return EXIT_STATUS.get(self.ended.outcome, RESUMABLE)

    def counts(self) -> dict[str, int]:
        """Count imaging studies and instances."""
        states = Counter("already" if entry.already else entry.state for entry in self.entries)
        return {
            "imaging_studies": len(self.entries),
            "fetched": states["fetched"],
            "already_here": states["already"],
            "failed": states["failed"],
            "not_yet": states["planned"],
            "instances_listed": sum(entry.listed or 0 for entry in self.entries),
            "instances_here": sum(entry.here for entry in self.entries),
            "instances_quarantined": sum(entry.quarantined for entry in self.entries),
        }

    def as_json(self, *, show_identifiers: bool = False) -> dict[str, Any]:
        """Return the receipt as it is printed and kept."""
        error = self.ended.error
        return {
            "schema": SCHEMA,
            "run": self.ended.run,
            "outcome": self.ended.outcome,
            **({"error": {"message": error.message, "remedy": error.remedy}} if error else {}),
            **self.counts(),
            "lines": [_line(entry, show_identifiers) for entry in self.entries],
        }

    def as_text(self, *, show_identifiers: bool = False) -> Iterator[str]:
        """Yield the receipt's lines: totals, then each imaging study that there is something to say about."""
        count = self.counts()
        said = SAID[self.ended.outcome] if self.entries or self.ended.outcome != "complete" else NOTHING
        yield said + (f" {self.ended.error}" if self.ended.error else "")
        yield (
            f"{count['imaging_studies']} imaging studies: {count['fetched']} fetched, "
            f"{count['already_here']} were here already, {count['failed']} failed, {count['not_yet']} not yet"
        )
        yield (
            f"{count['instances_here']} of {count['instances_listed']} instances are here, "
            f"{count['instances_quarantined']} in quarantine"
        )
        remarkable = [entry for entry in self.entries if entry.reason]
        if remarkable:
            yield f"{'number':>7} {'line':>5} {'state':8} {'here':>6} {'listed':>6} {'tries':>5}  reason"
        for entry in remarkable[:MOST_LINES]:
            yield _row(entry) + (f"  [{entry.accession or '-'} {entry.subject}]" if show_identifiers else "")
        if len(remarkable) > MOST_LINES:
            yield f"and {len(remarkable) - MOST_LINES} more: --json prints all"
        if self.exit_status == RESUMABLE:
            yield "Run the same command again: it goes on."


def _row(entry: Entry) -> str:
    line, listed = entry.line or "", "" if entry.listed is None else entry.listed
    return (
        f"{entry.number:>7} {line:>5} {entry.state:8} {entry.here:>6} {listed:>6} {entry.attempts:>5}  {entry.reason}"
    )


def _line(entry: Entry, show_identifiers: bool) -> dict[str, Any]:
    told = {
        "number": entry.number,
        "line": entry.line,
        "state": entry.state,
        "already_here": entry.already,
        "reason": entry.reason,
        "announced": entry.announced,
        "listed": entry.listed,
        "here": entry.here,
        "quarantined": entry.quarantined,
        "attempts": entry.attempts,
    }
    identifiers = {"accession": entry.accession, "subject": entry.subject} if show_identifiers else {}
    return told | identifiers
