"""Make a study of a MONAI Bundle: network, preparation and starting weights from the bundle, the rest from a person.

Nothing of the bundle runs: its config is read as data (`expressions.py`), its components are looked up in allow-lists
(`known_networks.py`, `known_transforms.py`), its weights are tensors (`given_weights.py`). What a hospital is then
asked to approve is an ordinary study; no file of the bundle travels.

A bundle of ours names its study (`configs/study.json`), and its config and scripts must be what this release writes
for that study. For a bundle whose digest the hospital's policy allows (`allowed_bundles`), expressions, scripts and
foreign components that its network and preparation do not need are passed over instead of refused; they run no more.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from protocol.digest import digest_of_bytes, parse_json
from protocol.errors import ProtocolError
from protocol.study import StudySpec, parse_study
from protocol.tensors import encode_weights
from site_node.bundles.archive import METADATA, BundleFiles, open_bundle
from site_node.bundles.export import script_contents
from site_node.bundles.expressions import refusals_of, resolved
from site_node.bundles.given_weights import weights_for
from site_node.bundles.inference_config import inference_config
from site_node.bundles.known_networks import KnownNetwork, differs_in_padding, is_known, known_network
from site_node.bundles.known_transforms import is_passed_over, preprocessing_terms
from site_node.bundles.network_definition import PORTABLE, STUDY_FILE
from site_node.bundles.predictions import outputs_of
from site_node.errors import BundleError, RefusedBundleError
from site_node.training.networks import build_network

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
MOST_CONFIG_BYTES = 1 << 20
CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".sh", ".ipynb", ".pkl", ".pickle")
OWN_RUNTIME = "site_node.bundles.runtime."


@dataclass(frozen=True)
class TakenIn:
    """A bundle as a study: its weights are the bytes that `study.start.weights` names.

    `differences` are sentences: in what the study's network is not the bundle's, though its weights are.
    """

    study: StudySpec
    weights: bytes
    bundle_digest: str
    differences: tuple[str, ...] = ()


def take_in(
    path: Path,
    terms: Mapping[str, Any] | None = None,
    *,
    own_preprocessing: bool = False,
    allowed: Collection[str] = (),
) -> TakenIn:
    """Read a bundle, a folder or a zip, as a study that starts from its weights.

    `terms` are what a bundle does not say, in a study's own words: cohort, label, training, privacy; they come before
    what a bundle of ours says of them. Of network and start the bundle's own words count.
    Raises: BundleError saying what is refused, SpecificationError or UnknownNetworkError if the study is not legal.
    """
    files = open_bundle(path)
    digest = files.digest()
    metadata = _document(files, METADATA)
    config_file = next((name for name in CONFIGS if name in files.sizes), CONFIGS[0])
    config = _document(files, config_file)
    own_scripts = _has_own_scripts(files)
    if digest not in allowed:
        _refuse_what_runs(files, config, own_scripts, digest)
    foreign: KnownNetwork | None = None
    if STUDY_FILE in files.sizes:
        stated = _own_study(files, config, terms or {})
    else:
        foreign = _foreign_network(config)
        stated = _foreign_study(config, metadata, terms or {}, foreign, own_preprocessing=own_preprocessing)
    network = build_network(parse_study({**stated, "start": {}}))
    plain = foreign is not None and foreign.plain_instances
    weights = encode_weights(weights_for(network, files, plain_instances=plain))
    study = parse_study({**stated, "start": {"weights": digest_of_bytes(weights)}})
    return TakenIn(study, weights, digest, tuple(_differences(foreign, study)) if foreign is not None else ())


def _differences(network: KnownNetwork, study: StudySpec) -> Iterator[str]:
    if network.dropout:
        yield f"Training goes on without the bundle's dropout ({', '.join(network.dropout)}), which holds no weights."
    if differs_in_padding(network, study.preprocessing.size):
        yield (
            f"The bundle's convolutions are padded for images of {network.padded_for}, the study's for its own: at "
            "some layers a pixel is added at another side."
        )


def _document(files: BundleFiles, name: str) -> dict[str, Any]:
    data = files.read(name, MOST_CONFIG_BYTES)
    try:
        found = parse_json(data) if name.endswith(".json") else _yaml(data)
    except (ProtocolError, ValueError, RecursionError, yaml.YAMLError):
        raise BundleError(f"{name} cannot be read.", "It is neither plain JSON nor plain YAML.") from None
    if not isinstance(found, dict):
        raise BundleError(f"{name} is no mapping.", "Is it a MONAI Bundle?")
    return found


def _yaml(data: bytes) -> Any:
    text = data.decode()
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("aliases")  # a few lines of them stand for billions
    return yaml.safe_load(text)


def _has_own_scripts(files: BundleFiles) -> bool:
    """Tell whether the bundle's scripts are, byte for byte, those that this release writes."""
    own = script_contents()
    return own.keys() <= files.sizes.keys() and all(
        files.read(name, MOST_CONFIG_BYTES) == content for name, content in own.items()
    )


def _refuse_what_runs(files: BundleFiles, config: Mapping[str, Any], own_scripts: bool, digest: str) -> None:
    known = set(script_contents()) if own_scripts else set()
    code = sorted(name for name in files.sizes if name.lower().endswith(CODE) and name not in known)

    def is_allowed(target: str) -> bool:
        ours = target.startswith((f"{PORTABLE}.", OWN_RUNTIME)) and own_scripts
        return ours or is_passed_over(target) or (is_known(target) and not target.startswith("scripts."))

    refusals = [f"{name}: code" for name in code] + refusals_of(config, is_allowed)
    if refusals:
        more = f", and {len(refusals) - 5} more" if len(refusals) > 5 else ""
        raise RefusedBundleError(
            "The bundle holds what would run: " + "; ".join(refusals[:5]) + more + ".",
            "Nothing of it was run. State values instead of expressions, or put this bundle's digest into "
            "allowed_bundles of a policy.yaml and name that file with --policy: what its network does not need is then "
            f"passed over. The digest: {digest}",
            digest,
        )


def _own_study(files: BundleFiles, config: Mapping[str, Any], terms: Mapping[str, Any]) -> dict[str, Any]:
    original = parse_study(parse_json(files.read(STUDY_FILE, MOST_CONFIG_BYTES)))
    if config != inference_config(original, outputs_of(original)):
        raise BundleError(
            "configs/inference.json is not what this release writes for configs/study.json.",
            "One was changed, or another release wrote it: without configs/study.json the config's word is taken.",
        )
    stated = original.model_dump(mode="json", by_alias=True)
    return {**stated, **terms, "network": stated["network"], "preprocessing": stated["preprocessing"]}


def _foreign_network(config: Mapping[str, Any]) -> KnownNetwork:
    if "network_def" not in config:
        raise BundleError("Its config has no network_def.", "Is it a MONAI Bundle for inference?")
    definition = resolved(config, config["network_def"])
    if not isinstance(definition, Mapping):
        raise BundleError("Its network_def is no component.", "Mend the config.")
    return known_network(definition)


def _foreign_study(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    terms: Mapping[str, Any],
    network: KnownNetwork,
    *,
    own_preprocessing: bool,
) -> dict[str, Any]:
    stated = dict(terms.get("preprocessing", {}))
    if own_preprocessing:
        preprocessing = {"size": _size(metadata, network), **stated}
    else:
        pipeline = resolved(config, config.get("preprocessing", []))
        known = preprocessing_terms(
            pipeline, network.dimensions, lambda: stated.get("size") or _size(metadata, network)
        )
        preprocessing = {**stated, **known}
    return {
        "name": _name(metadata),
        "kind": network.kind,
        "title": str(metadata.get("name") or metadata.get("task") or "")[:200],
        "label": {"classes": _classes(metadata, network)},
        **_modality(metadata),
        **terms,
        "preprocessing": preprocessing,
        "network": {
            "name": network.name,
            "normalisation": network.normalisation,
            "arguments": network.arguments,
        },
    }


def _tensor(metadata: Mapping[str, Any], group: str, name: str) -> Mapping[str, Any]:
    found: Any = metadata
    for key in ("network_data_format", group, name):
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _size(metadata: Mapping[str, Any], network: KnownNetwork) -> list[Any]:
    shape = network.size or _tensor(metadata, "inputs", "image").get("spatial_shape")
    if not isinstance(shape, list) or not all(isinstance(length, int) for length in shape) or not shape:
        raise BundleError(
            "Its preprocessing and its metadata name no fixed size of images.",
            "State preprocessing.size with --terms; images are then padded or cut to it, around their centre.",
        )
    if network.dimensions not in (None, len(shape)):
        raise BundleError("Its metadata and its network differ in the number of dimensions.", "Mend the bundle.")
    return shape


def _classes(metadata: Mapping[str, Any], network: KnownNetwork) -> list[str]:
    named = _tensor(metadata, "outputs", "pred").get("channel_def")
    names = [str(value)[:200] for _, value in sorted(named.items())] if isinstance(named, Mapping) else []
    if network.outputs == 1:
        return [f"no {names[0]}" if names else "no", names[0] if names else "yes"]
    return names if len(names) == network.outputs else [f"class {n}" for n in range(network.outputs or 2)]


def _modality(metadata: Mapping[str, Any]) -> dict[str, Any]:
    modality = str(_tensor(metadata, "inputs", "image").get("modality") or "")
    known = {
        "CT": "CT",
        "MR": "MR",
        "MRI": "MR",
        "US": "US",
        "DX": "DX",
        "CR": "CR",
        "MG": "MG",
        "PT": "PT",
        "XA": "XA",
    }
    return {"cohort": {"modality": [known[modality.upper()]]}} if modality.upper() in known else {}


def _name(metadata: Mapping[str, Any]) -> str:
    words = str(metadata.get("name") or metadata.get("task") or "bundle").lower()
    slug = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in words)
    return "-".join(part for part in slug.split("-") if part)[:50] or "bundle"
