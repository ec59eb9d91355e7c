"""A version of a study as the hub serves it: the study, the weights, the signed lineage, and how it was judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.digest import canonical_json, digest_of_bytes, parse_json
from protocol.errors import ProtocolError
from protocol.signing import PublicKey, open_envelope, read_unverified
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, decode_weights
from site_node.errors import BundleError

STUDY, VERSION, WEIGHTS = "study.json", "version.json", "weights.safetensors"


@dataclass(frozen=True)
class ReleasedVersion:
    """What an export is made of. `view` is the hub's own account of the version, `lineage` its signed document."""

    study: StudySpec
    weights: bytes
    view: Mapping[str, Any]
    lineage: Mapping[str, Any]
    envelope: bytes
    signed_by: str | None = field(default=None)
    """The hub's key, where the signature was checked against it."""

    @property
    def number(self) -> int:
        """Return the version's number."""
        return int(self.lineage["number"])

    def tensors(self) -> Weights:
        """Return the weights by name."""
        return decode_weights(self.weights)


def released_version(
    study_document: Any, view: Mapping[str, Any], weights: bytes, hub_key: str | None = None
) -> ReleasedVersion:
    """Put a version together and check that its parts belong to each other.

    Guarantee: the weights and the study are those that the lineage names; with a key, that the hub signed it.
    Raises: BundleError if they are not, SpecificationError if the study is not legal here.
    """
    study = parse_study(study_document)
    envelope = str(view.get("lineage_envelope") or "").encode()
    try:
        signed = open_envelope(envelope, PublicKey.from_text(hub_key)) if hub_key else read_unverified(envelope)
        lineage = parse_json(signed)
    except ProtocolError as error:
        raise BundleError(f"The version's lineage cannot be used: {error}", "Fetch the version again.") from None
    named = {"study_digest": study.digest, "weights_digest": digest_of_bytes(weights), "number": view.get("number")}
    for key, value in named.items():
        if lineage.get(key) != value:
            raise BundleError(
                f"The lineage's {key} is not that of what was given.", "Fetch study, version and weights again."
            )
    return ReleasedVersion(study, weights, view, lineage, envelope, hub_key)


def saved_version(folder: Path, hub_key: str | None = None) -> ReleasedVersion:
    """Read a version from a folder with study.json, version.json and weights.safetensors.

    Raises: BundleError if a file is missing, or they do not belong to each other.
    """
    try:
        study, view = (parse_json((folder / name).read_bytes()) for name in (STUDY, VERSION))
        weights = (folder / WEIGHTS).read_bytes()
    except OSError:
        raise BundleError(
            f"{folder} does not hold {STUDY}, {VERSION} and {WEIGHTS}.",
            "Save a version with `wardround hub save-version`, or name a hub with --hub.",
        ) from None
    return released_version(study, view, weights, hub_key)


def study_document(study: StudySpec) -> bytes:
    """Return the canonical JSON of a study, whose digest is the study's."""
    return canonical_json(study.model_dump(mode="json", by_alias=True))
