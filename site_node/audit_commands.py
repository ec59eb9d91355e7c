"""`wardround site audit-privacy` and `audit-inversion`: the privacy claim put to the test, at the hospital.

Neither sends anything or writes to a ledger. Heavy imports stand inside the commands, as in `cli.py`, which lists them.
"""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from site_node.command_line import Json, print_json, told
from site_node.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from protocol.study import StudySpec
    from site_node.privacy_audit.audit import AuditedRun
    from site_node.training.prepared_patients import PreparedPatients

DEFAULT_EPSILONS = ["null", "8", "1"]
NOBODY = "made-up patients and canaries"
OWN_PATIENTS = "this site's patients, and canaries; keep these figures in the hospital"
CAPTION = "Left to right: the image; rebuilt from its plain update, from its private update, from its masked update."

StudyFile = Annotated[Path | None, typer.Option("--study", metavar="STUDY.yaml", help="By default a small one.")]
Seed = Annotated[int, typer.Option(min=0, help="Of canaries, coins and noise. Fix it beforehand and do not retry.")]


@told
def audit_privacy(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Train beside this site's patients; else beside made-up ones.")
    ] = None,
    study: StudyFile = None,
    epsilon: Annotated[list[str] | None, typer.Option(help="A claim to audit, or null; several times.")] = None,
    canaries: Annotated[int, typer.Option(min=20, max=10_000, help="Made-up patients, each in by a coin.")] = 600,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Try to refute the privacy claim: train with canaries and measure how many an attacker finds out.

    Prints a 95% lower bound of epsilon beside each claimed epsilon, after Steinke, Nasr and Jagielski 2023. Exit status
    1 if a claim is refuted, which so many guesses can do for small claims only: 600 canaries for those below 3.66.
    Nothing leaves the hospital, and no ledger is touched.
    """
    from rich.console import Console
    from rich.progress import Progress

    from site_node.privacy_audit.audit import audit
    from site_node.privacy_audit.report import conditions_of, document_of, table_of

    _one_thread()
    specification, patients = _audited(folder, study, seed)
    runs: list[AuditedRun] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for claim in [_claim(text) for text in epsilon or DEFAULT_EPSILONS]:
            bar = progress.add_task("epsilon off" if claim is None else f"epsilon {claim:g}", total=1.0)
            report = functools.partial(_show, progress, bar)
            runs.append(audit(specification, patients, claim, canaries=canaries, seed=seed, report=report))
    document = document_of(specification, runs, canaries, seed, NOBODY if folder is None else OWN_PATIENTS)
    if as_json:
        print_json(document)
    else:
        Console(file=sys.stdout, highlight=False).print(table_of(runs))
        typer.echo(conditions_of(document))
    if not document["holds"]:
        typer.echo("A claim is refuted: do not train with this release until it is understood.", err=True)
        raise typer.Exit(1)


@told
def audit_inversion(
    out: Annotated[Path, typer.Option(help="Where the figure goes, as PNG.")],
    image: Annotated[
        Path | None, typer.Option(help="A DICOM image that may be shown; by default a drawn chest.")
    ] = None,
    study: StudyFile = None,
    label: Annotated[int, typer.Option(min=0, max=1, help="The image's label.")] = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Try to rebuild an image from the update of one step on it: plain, with differential privacy, and masked.

    The figure shows the image itself: give one that may be shown, or keep the figure where the image is kept.
    """
    from site_node.privacy_audit.figure import grey_png, side_by_side
    from site_node.privacy_audit.inversion import VIEWS, one_image_update, rebuild
    from site_node.privacy_audit.reference_studies import chest_study
    from site_node.privacy_audit.similarity import similarity

    if not out.parent.is_dir():
        raise SettingsError(f"{out.parent} is no folder.", "Name a file in one with --out.")
    _one_thread()
    specification = chest_study(8.0) if study is None else _study(study)
    original = _picture(specification, image)
    pictures, figures = [original], []
    for view in VIEWS:
        update = one_image_update(specification, original, label, view, seed)
        pictures.append(rebuild(update, seed))
        likeness = similarity(original, pictures[-1])
        figures.append({"view": view, "noise_multiplier": update.noise_multiplier, **likeness.document()})
    _write_figure(out, grey_png(side_by_side(pictures), CAPTION))
    if as_json:
        size = specification.preprocessing.size
        print_json({"schema": "wardround.inversion-audit/1", "seed": seed, "size": size, "views": figures})
        return
    for figure in figures:
        typer.echo(_likeness_line(figure))
    typer.echo(f"{out}\n{CAPTION}")


def _likeness_line(figure: Mapping[str, Any]) -> str:
    view, correlation, psnr_db, ssim = (figure[key] for key in ("view", "correlation", "psnr_db", "ssim"))
    return f"{view:<8} correlation {correlation:6.3f}   PSNR {psnr_db:5.1f} dB   SSIM {ssim:5.3f}"


def _show(progress: "Progress", bar: "TaskID", fraction: float) -> None:
    progress.update(bar, completed=fraction)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # small networks: more threads wait for each other; and one number gives one result


def _claim(text: str) -> float | None:
    if text in ("null", "off"):
        return None
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"--epsilon {text[:40]!r} is no number.", "Give a positive number, or null.") from None


def _study(path: Path) -> "StudySpec":
    from protocol.study import parse_study
    from site_node.settings import read_yaml

    study = parse_study(read_yaml(path, "Name the study's YAML file."))
    if study.kind != "classification" or study.outcome != "binary":
        raise SettingsError(
            f"The audits attack training on two classes of images, and this one is {study.kind}, {study.outcome}.",
            "Audit a study of images with the same privacy terms: the steps and their noise are the same code.",
        )
    return study


def _audited(folder: Path | None, study: Path | None, seed: int) -> tuple["StudySpec", "PreparedPatients"]:
    from site_node.privacy_audit.canaries import make_patients
    from site_node.privacy_audit.reference_studies import PATIENTS, small_study
    from site_node.privacy_audit.site_patients import training_patients

    if folder is None:
        specification = small_study(None) if study is None else _study(study)
        return specification, make_patients(specification, PATIENTS, seed)
    if study is None:
        raise SettingsError("Whose patients take part is written in a study.", "Name one with --study STUDY.yaml.")
    specification = _study(study)
    return specification, training_patients(folder, specification, seed)


def _picture(study: "StudySpec", path: Path | None) -> "NDArray[np.float32]":
    import numpy as np

    from site_node.privacy_audit.figure import chest_phantom

    if path is None:
        height, width = (study.preprocessing.size * 2)[:2]
        if height == width:
            return chest_phantom(height)
        raise SettingsError("The drawn chest is square, the study's images are not.", "Name one with --image.")
    from site_node.dicom.pixels import read_pixels
    from site_node.training.transforms import preparation

    return np.asarray(preparation(study.preprocessing)(read_pixels(path))[0])


def _write_figure(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.", "Name another file with --out.") from None
