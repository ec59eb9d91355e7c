"""Rule 1 on the disk: who owns what of a site, and whether its processes have a user each."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from site_node.doctor.finding import Finding, Part, fine, problem, warning
from site_node.settings import SitePaths, SiteSettings

SEE = "docs/operations.md, 'Keeping the processes apart'"
OTHERS = stat.S_IRWXO


@dataclass(frozen=True)
class Owned:
    """Who owns a folder (number of the user), and its mode."""

    user: int
    mode: int


def folders_of(paths: SitePaths) -> dict[Part, Path]:
    """Return the folder that is each process's own."""
    return {"gate": paths.gate, "worker": paths.worker, "agent": paths.agent, "ingest": paths.ingest}


def examine(settings: SiteSettings) -> list[Finding]:
    """Look at the owners and rights of the site's folders."""
    owned: dict[Part, Owned] = {}
    missing = []
    for part, folder in folders_of(settings.paths).items():
        try:
            found = folder.stat()
        except FileNotFoundError:
            missing.append(part)
        else:
            owned[part] = Owned(found.st_uid, found.st_mode)
    findings = [fine("settings", "site.yaml can be read."), *verdicts_on_owners(owned)]
    needed = [part for part in missing if part != "ingest"]
    if needed:
        says = f"The folder of {', '.join(needed)} is missing."
        findings.append(problem("folders", says, "Restore it from a backup: `wardround site restore`."))
    return findings


def verdicts_on_owners(owned: Mapping[Part, Owned]) -> list[Finding]:
    """Say whether the processes are kept apart. Pure."""
    findings = []
    open_to_all = [part for part, folder in owned.items() if folder.mode & OTHERS]
    if open_to_all:
        says = f"The folder of {', '.join(open_to_all)} can be read or written by every user of this machine."
        findings.append(problem("folders", says, f"chmod o-rwx; see {SEE}."))
    core: tuple[Part, ...] = ("gate", "worker", "agent")
    users = [owned[part].user for part in core if part in owned]
    if len(set(users)) < len(users):
        says = "Gate, worker and agent do not have a user each: what can read patients is not kept from the Internet."
        findings.append(warning("users", says, f"Give each its own user: {SEE}."))
    else:
        findings.append(fine("users", "Gate, worker and agent have a user each."))
    return findings
