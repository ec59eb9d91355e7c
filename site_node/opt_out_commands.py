"""`wardround site opt-out` and `opt-outs`: patients who object, and what they had been used for before."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from site_node.command_line import Folder, Json, open_site, print_json, told
from site_node.errors import SettingsError
from site_node.settings import load_settings

IF_NO_FILE = "Name a CSV with the column patient_id."


@told
def opt_out(
    folder: Folder,
    patient: Annotated[
        str | None,
        typer.Argument(metavar="PATIENT", help="A patient's id, or - to read ids line by line (no shell keeps them)."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A CSV with the column patient_id, instead.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="The id was typed by mistake: take it out again.")] = False,
) -> None:
    """Record that patients have opted out: from now on they take part in nothing, under any of their ids.

    A study that is counted later does not see them; a running one leaves them out from its next task on, and what they
    were charged stays charged. The prepared images of running studies are deleted and made again without theirs.
    """
    from site_node.durable import remove
    from site_node.opt_outs import record_opt_outs, undo_opt_outs

    paths = load_settings(folder).paths
    patients = _named(patient, file)
    change = undo_opt_outs if undo else record_opt_outs
    new = change(paths.opt_outs, patients)
    if not undo:
        for prepared in sorted(paths.cache.glob("[!.]*")):  # what is still being made keeps its hidden name
            remove(prepared)
    typer.echo(f"{'Taken out' if undo else 'Recorded'}: {new} of {len(patients)}; the others were known so before.")


@told
def opt_outs(
    folder: Folder,
    patient: Annotated[
        str | None, typer.Option(metavar="PATIENT", help="Only this patient, by any id of theirs; - reads it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what patients who opted out had been used for before: studies, rounds and versions. Nothing of it leaves.

    Needs the gate's records and the worker's key: run it as a user who may read both.
    """
    from site_node.cohort_members import pseudonym_key
    from site_node.opt_out_report import coarse, sentences_of, uses_of
    from site_node.opt_outs import all_opt_outs
    from site_node.site_secrets import read_noise_key

    with open_site(folder) as (settings, database):
        found = all_opt_outs(settings)
        if patient is not None:
            names = set(_named(patient, None))
            found = [entry for entry in found if names & set(entry.ids)]
        uses = uses_of(database, found, pseudonym_key(read_noise_key(settings.paths.noise_key)))
    if as_json:
        print_json({"patients_at_least": coarse(len(found)), "any": bool(found), "uses": [u.as_json() for u in uses]})
        return
    for line in sentences_of(found, uses):
        typer.echo(line)


def _named(patient: str | None, file: Path | None) -> list[str]:
    from site_node.cohort.csv_file import PATIENT_COLUMN, read_records

    if (patient is None) == (file is None):
        raise SettingsError("Name one patient, or a file of them.", "wardround site opt-out DIR PATIENT, or --file CSV")
    if file is not None:
        ids = [record[PATIENT_COLUMN] for record in read_records(file, (PATIENT_COLUMN,), IF_NO_FILE)]
    else:
        ids = sys.stdin.read().splitlines() if patient == "-" else [patient or ""]
    named = [one.strip() for one in ids if one.strip()]
    if not named:
        raise SettingsError("No patient is named there.", IF_NO_FILE)
    return named
