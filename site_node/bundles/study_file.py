"""The study that a bundle became, as a file for a person to read, and its weights beside it."""

from pathlib import Path
from typing import Any

import yaml

from protocol.study import MAX_STUDY_BYTES
from site_node.bundles.taking_in import TakenIn
from site_node.errors import BundleError

WEIGHTS_SUFFIX = ".safetensors"


def read_terms(path: Path) -> dict[str, Any]:
    """Read what a person states of a study.

    Raises: BundleError if it is no mapping, or too large.
    """
    try:
        text = path.read_bytes()[: MAX_STUDY_BYTES + 1]
        found = yaml.safe_load(text.decode()) if len(text) <= MAX_STUDY_BYTES else None
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise BundleError(f"{path} holds no terms of a study.", "Write some of a study's keys as YAML.")
    return found


def write_study(taken: TakenIn, out: Path) -> Path:
    """Write the study and its weights, making their folder; return where the weights lie.

    Raises: BundleError if one of the files exists.
    """
    weights = out.with_suffix(WEIGHTS_SUFFIX)
    for path in (out, weights):
        if path.exists():
            raise BundleError(f"{path} exists already.", "Name another file with --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    document = taken.study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    document["privacy"] = taken.study.model_dump(mode="json", exclude_defaults=False)["privacy"]
    header = f"# From the MONAI Bundle {taken.bundle_digest}; its weights: {weights.name}\n"
    out.write_text(header + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    weights.write_bytes(taken.weights)
    return weights
