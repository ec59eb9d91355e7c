"""`wardround site check`: is this hospital ready for a study, before anybody approves it?"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.readiness import MOST_REPORTS
from site_node.command_line import Folder, Json, print_json, told
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings, read_yaml

if TYPE_CHECKING:
    from protocol.study import StudySpec


WHAT_LEAVES = """\
What leaves, in fixed words, none of which depends on a patient of this hospital:
  - whether the disk and the memory of the worker's machine, as a whole, suffice for the study; GPU or not; decoders
  - the minutes of a round, to the next step of a ladder, timed on made-up images of as many patients as the study
    expects of a hospital
  - whether the table of labels that site.yaml names is there, with the study's column; no row of it is read
  - how many of the study's class names stand in label_names of site.yaml: every, some or none
  - the hours of the week in which this site trains, and whether it is being drained
  - whether policy.yaml objects to the study's terms; its epsilon and noise by this site's own accounting
It does not say how many patients match, whether any do, or who decides here."""


@told
def check(
    folder: Folder,
    study: Annotated[
        str, typer.Argument(help="A study's file (YAML or JSON), or the digest or name of one that was proposed here.")
    ],
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Take no steps of training; minutes and memory are then not told.")
    ] = False,
    all_names: Annotated[
        bool, typer.Option("--all-names", help="Show also rare words of the labels that the study does not know.")
    ] = False,
    send: Annotated[
        bool,
        typer.Option("--send", help="Do not look here: let the gate tell the researcher what depends on no patient."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --send: do not ask; for scripts.")] = False,
    as_json: Json = False,
) -> None:
    """Tell whether this hospital is ready for a study: patients, labels, masks, privacy, disk, memory, minutes a round.

    Run it before you approve; nothing is approved, charged or kept, and nothing sent but with --send. Small counts are
    hidden. Each finding comes with its remedy.

    Exit status: 0 nothing to do, 1 something to heed, 2 the study cannot run here as things are.
    """
    from rich.console import Console

    from protocol.errors import ProtocolError
    from site_node.doctor.finding import FAILED
    from site_node.readiness.report import lines_of, readiness_of

    settings = load_settings(folder)
    if send:
        _send(settings, study, asks=not yes)
        return
    try:
        asked = _study(settings, study)
    except (SettingsError, ProtocolError) as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(FAILED) from None
    with Console(stderr=True).status("Looking…") as shown:
        report = readiness_of(
            settings,
            asked,
            lambda what: shown.update(f"Looking at {what}…"),
            measures=not no_measure,
            all_names=all_names,
        )
    if as_json:
        print_json(report)
    else:
        for line in lines_of(report):
            typer.echo(line)
    raise typer.Exit(report["status"])


def _send(settings: SiteSettings, wanted: str, *, asks: bool) -> None:
    """Show what would leave, ask, and let the gate have it measured and sent. For the gate's user."""
    from site_node.command_line import open_site
    from site_node.governance.telling_readiness import ask_as_person

    digest = _proposed(settings, wanted).digest
    typer.echo(WHAT_LEAVES)
    if asks and not typer.confirm("Tell the researcher?"):
        typer.echo("Nothing is sent.")
        raise typer.Exit(1)
    with open_site(settings.paths.root) as (_, database):
        number = ask_as_person(database, digest, time.time())
    typer.echo(
        f"Report {number} of {MOST_REPORTS}: the worker looks at its machine, and the gate sends what it finds. "
        "See `wardround site egress DIR`."
    )


def _study(settings: SiteSettings, wanted: str) -> "StudySpec":
    from protocol.study import parse_study

    if Path(wanted).is_file():
        return parse_study(read_yaml(Path(wanted), "Name a study's file."))
    return _proposed(settings, wanted)


def _proposed(settings: SiteSettings, wanted: str) -> "StudySpec":
    from protocol.errors import ProtocolError
    from site_node.governance.records import open_records, study_records

    try:
        database = open_records(settings.paths)
    except PermissionError:
        raise SettingsError(
            "What was proposed lies with the gate, and this user may not read it.",
            "As the gate's user: wardround site studies DIR --show NAME --yaml > study.yaml; then name that file.",
        ) from None
    try:
        found = []
        for record in study_records(database):
            try:
                named = record.study.name == wanted
            except ProtocolError:  # one that never parsed cannot be checked
                continue
            if named or record.digest.startswith(wanted) or record.digest.removeprefix("sha256:").startswith(wanted):
                found.append(record.study)
    finally:
        database.close()
    if len(found) != 1:
        problem = "No study's file, name or digest is" if not found else "Several studies are named"
        raise SettingsError(f"{problem} {wanted[:80]!r}.", "See `wardround site studies DIR`.")
    return found[0]
