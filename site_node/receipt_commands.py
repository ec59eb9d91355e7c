"""`wardround site receipts`: what each round really used here."""

import time
from typing import Annotated, Any

import typer

from site_node.command_line import Folder, Json, print_json, told
from site_node.settings import load_settings


@told
def receipts(
    folder: Folder,
    study: Annotated[
        str | None, typer.Option(help="Only this study: its name, or the beginning of its digest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what each job of the worker used: study, round, how much of the approved cohort, who was skipped and why.

    The receipts are signed and stay here; small numbers are hidden. Run it as the worker's user. Exit status 1 if one
    was changed.
    """
    from site_node.cohort.cohort import SMALLEST_SAID
    from site_node.governance.policy import load_policy
    from site_node.site_secrets import read_noise_key
    from site_node.work_receipts import kept_receipts, receipt_as_json

    settings = load_settings(folder)
    least = max(SMALLEST_SAID, load_policy(settings.policy).minimum_patients)
    kept = kept_receipts(settings.paths, read_noise_key(settings.paths.noise_key))
    found = [receipt_as_json(one, least) for one in kept]
    if study is not None:
        found = [one for one in found if not one["signed"] or _is_of(one, study)]
    if as_json:
        print_json(found)
    else:
        for one in found:
            typer.echo(_line(one))
        if not found:
            typer.echo("No job has ended yet.")
    if not all(one["signed"] for one in found):
        raise typer.Exit(1)


def _is_of(receipt: dict[str, Any], study: str) -> bool:
    digest: str = receipt["study_digest"]
    return (
        str(receipt["study"]) == study or digest.startswith(study) or digest.removeprefix("sha256:").startswith(study)
    )


def _line(receipt: dict[str, Any]) -> str:
    if not receipt["signed"]:
        return f"{receipt['task_id']}: NOT SIGNED by this site, or changed since"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(receipt["at"]))
    where = f"{when}  {receipt['study']:<24.24} round {receipt['round']:>3}  {receipt['kind']:<10}"
    if receipt["failed"]:
        return f"{where} FAILED: {receipt['reason']}; nothing was used"
    numbers = ""
    if receipt["matched"] is not None:
        numbers = f", {receipt['matched']} or more patients"
    if receipt["patients"] is not None:
        numbers += f", of whom {receipt['patients']} or more with {receipt['images']} or more images were used"
    if receipt["images_matched"] is not None and receipt["patients"] is not None:
        numbers += f" of {receipt['images_matched']} or more"
    cohort = f"{receipt['share']} of the approved cohort" if receipt["share"] else "no patients, or few"
    return f"{where} {cohort}{numbers}, {receipt['seconds']:.0f} s{_skipped(receipt['skipped'])}"


def _skipped(reasons: dict[str, dict[str, int | None]]) -> str:
    """Say who and what was skipped, and why: patients, and the files and rows that were left out when counted."""
    from site_node.work_receipts import SKIPPED_PEOPLE

    people = {reason.value: words for reason, words in SKIPPED_PEOPLE.items()}
    said = [f"{numbers['patients']} or more {people[one]}" for one, numbers in reasons.items() if one in people]
    files = [f"{one} {numbers['images']} or more" for one, numbers in reasons.items() if one not in people]
    patients = f"; patients skipped: {', '.join(said)}" if said else ""
    return f"{patients}; files or rows left out when counted: {', '.join(files)}" if files else patients
