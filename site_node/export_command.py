"""`wardround site export`: de-identified copies of a hospital's images, for people and not for the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_node.command_line import Folder, Json, open_site, print_json, study_beginning, told
from site_node.errors import SettingsError
from site_node.settings import load_settings

if TYPE_CHECKING:
    from protocol.study import StudySpec
    from site_node.exporting import ExportSummary

MOST_SAID = 12


@told
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder outside the site's, or one to go on with.")],
    imaging_study: Annotated[
        list[str] | None, typer.Option(help="Only this imaging study (its DICOM UID); may be given several times.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Only the cohort of this research study, with its labels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write de-identified copies of the site's images: all, some imaging studies, or a research study's cohort.

    DIR/deidentification.yaml says what copies may keep; without it they keep the least. Nothing is sent anywhere. Read
    OUT/report.json before a copy leaves the hospital: it says what is left in them. The same command goes on after an
    interruption.
    """
    from rich.console import Console
    from rich.progress import Progress

    from site_node.export_selection import cohort_images, indexed_images
    from site_node.exporting import export_images
    from site_node.opt_outs import load_identities

    if imaging_study and study:
        raise SettingsError("--imaging-study and --study exclude each other.", "Choose one.")
    settings = load_settings(folder)
    specification = _study(folder, study) if study else None
    selection: dict[str, object] = {"imaging_studies": sorted(set(imaging_study or []))}
    if specification is None:
        chosen = indexed_images(settings.paths.index, imaging_study or [], load_identities(settings))
    else:
        chosen = cohort_images(settings, specification)
        selection |= {"study": specification.digest}
    label_column = None if specification is None else specification.label.column
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bars:
        bar = bars.add_task("de-identifying", total=len(chosen))
        summary = export_images(
            settings, out, chosen, selection, label_column, lambda done, _all: bars.update(bar, completed=done)
        )
    if as_json:
        print_json(summary.as_json())
    else:
        _say(summary, out)
    if not summary.copied and not summary.kept:
        raise typer.Exit(1)


def _study(folder: Path, digest: str) -> "StudySpec":
    from site_node.governance.records import study_records

    with open_site(folder) as (_, database):
        whole = study_beginning(database, digest)
        return next(record.study for record in study_records(database) if record.digest == whole)


def _say(summary: "ExportSummary", out: Path) -> None:
    typer.echo(f"{summary.copied} images copied, {summary.kept} were there already, {summary.removed} removed: {out}")
    for reason, number in summary.refused.most_common():
        typer.echo(f"  refused: {number} x {reason}")
    if summary.refused_list is not None:
        typer.echo(f"  which files they are: {summary.refused_list}")
    look_at = summary.report.warnings()
    if look_at:
        typer.echo("Look at this before a copy leaves the hospital; all of it is in report.json:")
    for line in look_at[:MOST_SAID]:
        typer.echo(f"  {line}")
    if len(look_at) > MOST_SAID:
        typer.echo(f"  and {len(look_at) - MOST_SAID} more")
