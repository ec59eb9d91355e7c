"""Components that may stand in a bundle's config, and which transforms are a study's own preparation.

A study's preparation reads a DICOM file as grey values, scales by the image's own range, pads to a square, resizes by
areas and standardises. The bundle's own script says just that. Of MONAI's transforms none pads an image to its own
longest side, so a pipeline of MONAI's alone means something else, and each transform is told with the reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from site_node.bundles.network_definition import PORTABLE
from site_node.errors import BundleError

READ, PREPARE = f"{PORTABLE}.ReadGrey", f"{PORTABLE}.PrepareGrey"
FITS = ("EnsureChannelFirst", "EnsureType", "Compose", "ToDevice")
DIFFERS = {
    "LoadImage": "turns the axes, and leaves MONOCHROME1 and colour as they are",
    "ScaleIntensity": "",
    "ScaleIntensityRangePercentiles": "",
    "ScaleIntensityRange": "scales by fixed limits, and a study by each image's own",
    "NormalizeIntensity": "",
    "Resize": "without padding to a square it changes an image's proportions",
    "SpatialPad": "pads to a fixed size, and a study to the image's own longest side",
    "Orientation": "turns the axes",
    "Spacing": "resamples to fixed distances in mm",
    "CropForeground": "cuts the image",
    "ResizeWithPadOrCrop": "cuts the image",
    "CenterSpatialCrop": "cuts the image",
    "RepeatChannel": "makes several channels, and a study's image has one",
}
AFTERWARDS = ("Activations", "AsDiscrete", "Invert", "SaveImage", "CastToType", "SqueezeDim", "Transpose")
_MONAI = {
    "monai.transforms": {*FITS, *DIFFERS, *AFTERWARDS},
    "monai.data": {"Dataset", "CacheDataset", "DataLoader", "ThreadDataLoader"},
    "monai.inferers": {"SimpleInferer", "SlidingWindowInferer"},
    "monai.engines": {"SupervisedEvaluator"},
    "monai.handlers": {"CheckpointLoader", "StatsHandler", "ClassificationSaver", "ValidationHandler"},
}


def is_passed_over(target: str) -> bool:
    """Tell whether a component may stand in a config although nothing is made of it: data, inference, transforms."""
    module, _, name = target.rpartition(".")
    plain = name.removesuffix("d") if name.removesuffix("d") in _MONAI["monai.transforms"] else name
    return any(plain in names and module in ("", known) for known, names in _MONAI.items())


def preprocessing_terms(pipeline: Any) -> dict[str, Any]:
    """Return a study's `preprocessing` of a bundle's, its references resolved.

    Raises: BundleError naming each transform that a study's preparation does not have.
    """
    transforms = _transforms(pipeline)
    targets = [str(transform.get("_target_", "")) for transform in transforms]
    if targets == [READ, PREPARE]:
        return {key: transforms[1][key] for key in ("size", "intensity", "window") if key in transforms[1]}
    different = [f"{target}: {reason}" for target in targets if (reason := _difference(target))]
    raise BundleError(
        "Its preprocessing is not what a study can have. " + "; ".join(different or ["an image is not padded"]) + ".",
        "Take the network and weights alone with --own-preprocessing; images then look different from those that the "
        "weights learnt from.",
    )


def _transforms(pipeline: Any) -> Sequence[Mapping[str, Any]]:
    found = pipeline.get("transforms") if isinstance(pipeline, Mapping) else pipeline
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise BundleError("Its preprocessing is no list of transforms.", "Mend the config, or use --own-preprocessing.")
    return found


def _difference(target: str) -> str:
    name = target.rsplit(".", 1)[-1]
    plain = name.removesuffix("d") if name not in FITS else name
    if plain in FITS:
        return ""
    return DIFFERS.get(plain, "a study has none")
