"""The list of checks, and how it is gone through: one after the other, each failing for itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from site_node.doctor.finding import Finding, Part, problem
from site_node.errors import SiteError
from site_node.settings import SiteSettings


@dataclass(frozen=True)
class Check:
    """One examination: whose it is, what is said while it runs, and where it is found."""

    part: Part
    title: str
    module: str
    function: str = "examine"

    def load(self) -> Callable[[SiteSettings], list[Finding]]:
        """Import it; nothing is imported for a part that is not looked at, torch and pydicom least of all."""
        found: Callable[[SiteSettings], list[Finding]] = getattr(import_module(self.module), self.function)
        return found


CHECKS = (
    Check("settings", "folders and users", "site_node.doctor.separation"),
    Check("gate", "enrolment, ledger, approvals", "site_node.doctor.registration"),
    Check("gate", "what is under way", "site_node.doctor.standing", "examine_gate"),
    Check("worker", "index and jobs", "site_node.doctor.standing", "examine_worker"),
    Check("worker", "tables named in site.yaml", "site_node.doctor.named_files"),
    Check("worker", "disk", "site_node.doctor.disk"),
    Check("worker", "memory", "site_node.doctor.memory"),
    Check("worker", "redis", "site_node.doctor.queue"),
    Check("worker", "decoders", "site_node.doctor.decoders"),
    Check("worker", "GPUs", "site_node.doctor.gpu"),
    Check("agent", "hub, proxy, clock", "site_node.doctor.hub"),
    Check("ingest", "PACS", "site_node.doctor.pacs"),
    Check("ingest", "listener", "site_node.doctor.listener"),
)


def checks_of(part: Part) -> list[Check]:
    """Return the checks of one part, in order."""
    return [check for check in CHECKS if check.part == part]


def examine(
    settings: SiteSettings, part: Part, looking: Callable[[str], object] = lambda _: None
) -> Iterator[dict[str, Any]]:
    """Yield what is found about one part, as JSON. A check that fails is a finding, and the others go on."""
    for check in checks_of(part):
        looking(check.title)
        try:
            findings = check.load()(settings)
        except SiteError as error:
            findings = [problem(check.title, error.message, error.remedy)]
        except Exception as error:  # a check that breaks must not hide the others; its words may quote what it read
            says = f"This check itself failed ({type(error).__name__})."
            findings = [problem(check.title, says, "See whether this user may read what it looks at; else report it.")]
        yield from (finding.as_json(part) for finding in findings)
