"""`wardround site opt-out` and `opt-outs`: patients who object, and what they had been used for before."""

import sys
from collections.abc import Collection, Iterator, Sequence
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
    any_case: Annotated[
        bool, typer.Option("--any-case", help="Take the ids here that differ from the named ones only in capitals.")
    ] = False,
) -> None:
    """Record that patients have opted out: from now on they take part in nothing, under any of their ids.

    A study that is counted later does not see them; a running one leaves them out from its next task on, and what they
    were charged stays charged. The prepared images of running studies are deleted and made again without theirs, and a
    training that was interrupted begins anew. How many of the ids are no patient's here is told; these too are
    recorded, and hold for images that come later.
    """
    from site_node.checkpoint_folders import forget_progress
    from site_node.durable import remove
    from site_node.opt_outs import as_written_here, known_patients, record_opt_outs, recorded_opt_outs, undo_opt_outs

    settings = load_settings(folder)
    record = settings.paths.opt_outs
    patients = _named(patient, file)
    if any_case:
        patients = as_written_here(patients, recorded_opt_outs(record) if undo else known_patients(settings))
    if undo:
        typer.echo(_changed("Taken out", undo_opt_outs(record, patients), len(patients), "not in the record"))
        return
    new = record_opt_outs(record, patients)
    for prepared in sorted(settings.paths.cache.glob("[!.]*")):  # what is still being made keeps its hidden name
        remove(prepared)
    forget_progress(settings.paths)
    typer.echo(_changed("Recorded", new, len(patients), "had opted out before"))
    for line in _strangers(patients, known_patients(settings)):
        typer.echo(line)


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


def _changed(done: str, new: int, named: int, rest: str) -> str:
    others = named - new
    return f"{done}: {new} of {named}{f'; {others} {rest}' if others else ''}."


def _strangers(patients: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Yield how many of the ids are nobody's here, and for how many it may be a matter of spelling; never an id."""
    unknown = [one for one in patients if one not in known]
    if unknown:
        yield (
            f"{len(unknown)} of {len(patients)} {'is' if len(unknown) == 1 else 'are'} no patient here: check the "
            "spelling. They are recorded all the same, and hold if images of these patients come."
        )
    capitals = {one.casefold() for one in known}
    alike = sum(one.casefold() in capitals for one in unknown)
    if alike:
        yield f"{alike} of them differs from a patient's id here only in capitals: give --any-case to take that id."
