"""`wardround site retrieve`: fetch images from the hospital's PACS. The ingest process: it reaches nothing else."""

import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_node.command_line import Folder, Json, print_json, stop_on_signal, told
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings, read_yaml

if TYPE_CHECKING:
    from protocol.cohort_terms import Cohort as Criteria
    from site_node.ingest.pacs import Pacs
    from site_node.ingest.retrieval_receipt import Receipt
    from site_node.ingest.wanted import Wanted

DAY = ["%Y-%m-%d"]


@told
def retrieve(
    folder: Folder,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A study whose cohort's criteria choose: what `wardround site studies DIR --show DIGEST --yaml` says",
        ),
    ] = None,
    accessions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Accession numbers, one a line, or a CSV with the column accession_number."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="Only imaging studies from this day on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=DAY, help="Only imaging studies up to this day.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask anew for what was fetched; what is here stays.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the hours of pacs.hours; else end with status 4.")] = True,
    echo: Annotated[bool, typer.Option("--echo", help="Only ask whether the PACS is there and knows us.")] = False,
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Print accession numbers and UIDs: they lead to patients.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch images from the PACS in site.yaml: those of a study's cohort, of a list of accession numbers, or of both.

    Runs as the ingest process's user, who can read neither keys nor ledgers. May be stopped or killed and started
    again: it goes on, and fetches nothing twice. An imaging study that cannot be fetched is a line in the receipt.

    Status: 0 all is here, 3 some imaging studies could not be fetched, 4 ended early and goes on when run again
    (stopped, PACS away, disk full, outside hours), 1 a fault that somebody must mend.
    """
    from site_node.dicom.quiet import quiet
    from site_node.ingest.pacs import open_pacs

    settings = load_settings(folder)
    with quiet(), closing(open_pacs(settings.pacs)) as pacs:
        if echo:
            _echo(pacs, as_json)
            return
        wanted = _wanted(study, accessions, since, until)
        receipt = _fetch(settings, pacs, wanted, again=again, wait=wait, silent=as_json)
    if as_json:
        print_json(receipt.as_json(show_identifiers=show_identifiers))
    else:
        for line in receipt.as_text(show_identifiers=show_identifiers):
            typer.echo(line)
    raise typer.Exit(receipt.exit_status)


def _echo(pacs: "Pacs", as_json: bool) -> None:
    began = time.monotonic()
    answer = pacs.echo()
    milliseconds = round((time.monotonic() - began) * 1000)
    if as_json:
        print_json({"answer": answer, "milliseconds": milliseconds})
    else:
        typer.echo(f"{answer}, in {milliseconds} ms")


def _wanted(study: Path | None, accessions: Path | None, since: datetime | None, until: datetime | None) -> "Wanted":
    from site_node.ingest.wanted import Wanted, read_accessions

    if study is None and accessions is None:
        raise SettingsError("Nothing says what to fetch.", "Name --study FILE, --accessions FILE, or both.")
    if since and until and since > until:
        raise SettingsError("--from is after --until.", "Exchange them.")
    wanted = Wanted(
        criteria=_criteria(study) if study else None,
        listed=read_accessions(accessions) if accessions else None,
        since=since.date() if since else None,
        until=until.date() if until else None,
    )
    if wanted.first_day and wanted.last_day and wanted.first_day > wanted.last_day:
        raise SettingsError(
            f"No day is left: the study and the options leave {wanted.first_day} until {wanted.last_day}.",
            "Name days that the study asks for, or none: --from and --until only narrow its own.",
        )
    return wanted


def _criteria(path: Path) -> "Criteria":
    from protocol.study import parse_study

    return parse_study(read_yaml(path, "Write the study there: wardround site studies DIR --show DIGEST --yaml")).cohort


def _fetch(
    settings: SiteSettings, pacs: "Pacs", wanted: "Wanted", *, again: bool, wait: bool, silent: bool
) -> "Receipt":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from site_node.ingest.retrieval_run import retrieve_once
    from site_node.ingest.retrieving import Progress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, disable=silent) as bars:
        asking = bars.add_task("questions asked", total=None)
        instances = bars.add_task("instances", total=None)
        studies = bars.add_task("imaging studies", total=None)
        progress = Progress(
            asked=lambda: bars.advance(asking),
            instance=lambda: bars.advance(instances),
            settled=lambda done, of: bars.update(studies, completed=done, total=of),
        )
        return retrieve_once(settings, pacs, wanted, stop_on_signal(), progress, wait_for_hours=wait, again=again)
