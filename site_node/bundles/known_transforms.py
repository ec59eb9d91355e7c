"""Components that may stand in a bundle's config, and a bundle's preprocessing as a study's.

A bundle of ours prepares as studies do, with its own script. Another bundle's pipeline of MONAI's transforms becomes a
study's `preprocessing.steps`, one by one and in its order (`monai_steps.py`); what has no step is refused by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from site_node.bundles.monai_steps import PASSED_OVER, RANDOM, REFUSED, STEPS, Stated, step_of
from site_node.bundles.network_definition import PORTABLE
from site_node.errors import BundleError

READ, PREPARE = f"{PORTABLE}.ReadGrey", f"{PORTABLE}.PrepareGrey"
SIZINGS = ("Resize", "ResizeWithPadOrCrop")
CHANGES_SIZE = ("Orientation", "Spacing", "CropForeground", "SpatialPad", "CenterSpatialCrop", *SIZINGS)
AFTERWARDS = ("Activations", "AsDiscrete", "Invert", "SaveImage", "SqueezeDim", "Transpose", "Compose")
_MONAI = {
    "monai.transforms": {*PASSED_OVER, *STEPS, *REFUSED, *AFTERWARDS} - {"Lambda"},
    "monai.data": {"Dataset", "CacheDataset", "DataLoader", "ThreadDataLoader"},
    "monai.inferers": {"SimpleInferer", "SlidingWindowInferer"},
    "monai.engines": {"SupervisedEvaluator"},
    "monai.handlers": {"CheckpointLoader", "StatsHandler", "ClassificationSaver", "ValidationHandler"},
}
TAKE_OWN = (
    "Take the network and weights alone with --own-preprocessing; images then look different from those that the "
    "weights learnt from."
)


def is_passed_over(target: str) -> bool:
    """Tell whether a component may stand in a config although nothing of it runs: data, inference, transforms."""
    module, _, name = target.rpartition(".")
    plain = _plain(name)
    known = any(plain in names and module in ("", known) for known, names in _MONAI.items())
    return known or (module in ("", "monai.transforms") and plain.startswith(RANDOM))


def preprocessing_terms(pipeline: Any, dimensions: int | None, size: Callable[[], list[int]]) -> dict[str, Any]:
    """Return a study's `preprocessing` of a bundle's, its references resolved.

    `dimensions` are the network's; `size` says what images come to where the pipeline leaves that open: they are then
    padded or cut to it, around their centre.
    Raises: BundleError naming each transform that no study can have.
    """
    found = _transforms(pipeline)
    targets = [str(transform.get("_target_", "")) for transform in found]
    if targets == [READ, PREPARE]:
        return {key: found[1][key] for key in ("size", "intensity", "window") if key in found[1]}
    steps, refusals = list[Stated](), list[BundleError]()
    for transform in found:
        try:
            steps += _step(transform, dimensions)
        except BundleError as error:
            refusals.append(error)
    if refusals or not steps:
        reasons = " ".join(f"{error.message} {error.remedy}" for error in refusals) or "It has no transform of images."
        raise BundleError(f"Its preprocessing is not what a study can have. {reasons}", TAKE_OWN)
    changing = [step for step in steps if step["transform"] in CHANGES_SIZE]
    if not changing or changing[-1]["transform"] not in SIZINGS:
        steps.append({"transform": "ResizeWithPadOrCrop", "spatial_size": size()})
    return {"size": next(s["spatial_size"] for s in reversed(steps) if s["transform"] in SIZINGS), "steps": steps}


def _step(transform: Mapping[str, Any], dimensions: int | None) -> list[Stated]:
    target = str(transform.get("_target_", ""))
    module, _, name = target.rpartition(".")
    if module not in ("", "monai.transforms"):
        raise BundleError(f"{target[:80]}: it is none of MONAI's transforms.", "A study runs no other.")
    step = step_of(_plain(name), transform, dimensions)
    return [] if step is None else [step]


def _plain(name: str) -> str:
    """Return a transform's name without the d, D or Dict of those that take a dictionary."""
    known = _MONAI["monai.transforms"]
    for ending in ("Dict", "d", "D"):
        if name.endswith(ending) and (name.removesuffix(ending) in known or name.startswith(RANDOM)):
            return name.removesuffix(ending)
    return name


def _transforms(pipeline: Any) -> Sequence[Mapping[str, Any]]:
    found = pipeline.get("transforms") if isinstance(pipeline, Mapping) else pipeline
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise BundleError("Its preprocessing is no list of transforms.", "Mend the config, or use --own-preprocessing.")
    return found
