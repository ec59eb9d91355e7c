"""`wardround site doctor`: look at everything that a site needs, and say for each fault what to do."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from site_node.command_line import Folder, Json, print_json, told
from site_node.settings import SiteSettings, load_settings

MARKS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM", "unseen": "unseen "}


@told
def doctor(
    folder: Folder,
    part: Annotated[
        str | None, typer.Option(help="Look only at this part: settings, gate, worker, agent or ingest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at clock, disk, memory, GPU, hub, enrolment, approvals, PACS, listener, Redis and decoders; say what to do.

    Run it as root: each part is then looked at as the user that it runs as, and sees what that process sees. Run by
    another user it looks at what is that user's and names the rest `unseen`. Nothing is changed.

    Exit status: 0 nothing to do, 1 something to heed or unseen, 2 something does not work.
    """
    from rich.console import Console

    from site_node.doctor.finding import PARTS, exit_status
    from site_node.errors import SettingsError

    parts = [known for known in PARTS if part in (None, known)]
    if not parts:
        raise SettingsError(f"There is no part {part!r}.", f"Choose one of {', '.join(PARTS)}.")
    settings = load_settings(folder)
    with Console(stderr=True).status("Looking…") as shown:
        findings = _look(settings, parts, lambda title: shown.update(f"Looking at {title}…"))
    status = exit_status(finding["level"] for finding in findings)
    if as_json:
        print_json({"site": settings.name, "status": status, "findings": findings})
    else:
        _show(findings)
    raise typer.Exit(status)


def _look(settings: SiteSettings, parts: list[Any], looking: Callable[[str], object]) -> list[dict[str, Any]]:
    from site_node.doctor.examination import examine
    from site_node.doctor.parts import examined_as, owners_of, unseen, ways_of
    from site_node.doctor.separation import folders_of

    owners, found = owners_of(settings.paths), list[dict[str, Any]]()
    ways = ways_of(os.geteuid(), owners)
    for part in parts:
        if ways[part] == "here":
            found += examine(settings, part, looking)
        elif ways[part] == "unseen":
            found.append(unseen(part, owners[part]).as_json(part))
        else:
            looking(f"the {part}, as its user")
            group = folders_of(settings.paths)[part].stat().st_gid
            found += examined_as(settings.paths.root, part, owners[part], group)
    return found


def _show(findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        typer.echo(f"{MARKS[finding['level']]} {finding['part']:<8} {finding['check']:<13} {finding['says']}")
        if finding["level"] != "ok" and finding["remedy"]:
            typer.echo(f"{'':<31}→ {finding['remedy']}")
