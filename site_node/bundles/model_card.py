"""docs/README.md of a bundle: what somebody who finds the model has to know about it."""

from collections.abc import Mapping

from protocol.study import StudySpec
from site_node.bundles.metadata import INTENDED_USE, evaluation
from site_node.bundles.predictions import columns_of
from site_node.bundles.released import ReleasedVersion

HOW_TO_RUN = """## How to run it

In this folder, with DICOM files{what} in `images/`:

    python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json

writes `eval/scores.csv`. Another folder: `--dataset_dir FOLDER`. What it needs beside MONAI is in
`configs/metadata.json` (`required_packages_version`). To check the bundle without a network:

    python -m monai.bundle verify_metadata --meta_file configs/metadata.json --filepath configs/metadata_schema.json
    python -m monai.bundle verify_net_in_out --net_id network_def --meta_file configs/metadata.json \\
        --config_file configs/inference.json
"""


def model_card(released: ReleasedVersion, formats: Mapping[str, str | None], license_name: str) -> str:
    """Return the model card, in Markdown. `formats` says of each further format why it is missing, or None."""
    parts = [
        f"# {released.study.title or released.study.name}, version {released.number}",
        f"{released.study.description}\n\n{INTENDED_USE}".strip(),
        _origin(released),
        _privacy(released),
        _results(released),
        _answers(released.study, formats),
        HOW_TO_RUN.format(what=_input(released.study)),
        f"## Licence\n\n{license_name}: see `LICENSE`.",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _origin(released: ReleasedVersion) -> str:
    lineage = released.lineage
    sites = "\n".join(
        f"| {part['site']} | {part['weight']:g} | `{part['update_digest']}` |" for part in lineage["participants"]
    )
    table = f"\n\n| hospital | weight | its update |\n|---|---|---|\n{sites}" if sites else ""
    parents = ", ".join(f"`{parent}`" for parent in lineage["parents"]) or "none"
    checked = f"checked against the hub's key `{released.signed_by}`" if released.signed_by else "not checked here"
    return (
        "## Where it comes from\n\n"
        f"- study: `{lineage['study_digest']}` (all its terms: `configs/study.json`)\n"
        f"- weights: `{lineage['weights_digest']}`: `models/model.safetensors`, the same as in `models/model.pt`\n"
        f"- made from: {parents}, in round {lineage['round']}\n"
        f"- signed lineage: `docs/lineage.dsse.json`, {checked}{table}"
    )


def _privacy(released: ReleasedVersion) -> str:
    spent = released.lineage["privacy"]
    if spent is None:
        text = "None was accounted for this version: nothing bounds what it may tell about a training patient."
    else:
        text = (
            f"Differential privacy for each {released.study.privacy.unit}: epsilon {spent['epsilon']:.4g} "
            f"at delta {spent['delta']:g}, the largest that a hospital has accounted for so far."
        )
    return f"## Privacy of the patients\n\n{text}"


def _results(released: ReleasedVersion) -> str:
    figures = evaluation(released)
    if not figures:
        return "## Held-out results\n\nThis version was not judged on held-out patients."
    lines = "\n".join(f"| {name} | {value:g} |" for name, value in figures.items())
    head = "## Held-out results\n\nPooled over the hospitals' held-out patients.\n\n| figure | value |\n|---|---|\n"
    return head + lines


def _answers(study: StudySpec, formats: Mapping[str, str | None]) -> str:
    columns = ", ".join(columns_of(study))
    lines = [
        f"- {name}: gives the same outputs as the network, within 1e-4" if reason is None else f"- {name}: no. {reason}"
        for name, reason in formats.items()
    ]
    patient = "" if study.outcome in ("segmentation",) else f" A patient's is the {study.label.patient_score} of them."
    return f"## What it answers\n\nFor each image or row: {columns}.{patient}\n\n" + "\n".join(lines)


def _input(study: StudySpec) -> str:
    if study.kind == "tabular":
        return " replaced by CSVs of the study's columns"
    return " of a series each in a folder of its own" if len(study.preprocessing.size) == 3 else " of one frame each"
