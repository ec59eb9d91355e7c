"""Transforms of a bundle's preprocessing as a study's steps: which there are, argument by argument.

What a study's step cannot say (another padding, per-axis factors, a function) is refused with the argument's name; what
only reads an image or changes its container is passed over, because a study reads images in its own way.
"""

from collections.abc import Callable, Mapping
from typing import Any

from site_node.errors import BundleError

IMAGE = "image"
Stated = dict[str, Any]
REFUSED: Mapping[str, str] = {
    "RepeatChannel": "makes several channels, and a study's image has one",
    "Lambda": "is Python",
    "AddChannel": "is gone from MONAI; EnsureChannelFirstd says the same",
    "ConcatItems": "joins several images, and a study has one for each patient at a time",
    "ConvertToMultiChannelBasedOnBratsClasses": "is of labels, which a study takes from masks.csv",
    "DivisiblePad": "leaves images of different size, and a study's have one: use ResizeWithPadOrCropd",
    "HistogramNormalize": "no step of a study is it; ScaleIntensityRangePercentilesd is near",
    "ThresholdIntensity": "no step of a study is it; ScaleIntensityRanged with clip is near",
}
RANDOM = "Rand"


class Arguments:
    """The arguments of one transform for the key `image`, each asked for once; what nobody asked for is refused."""

    def __init__(self, name: str, stated: Mapping[str, Any]) -> None:
        self.name = name
        self._left = {key: value for key, value in stated.items() if key not in ("_target_", "_desc_", "_meta_")}
        keys = self._left.pop("keys", IMAGE)
        self.keys = [keys] if isinstance(keys, str) else list(keys)
        self.take("allow_missing_keys")
        self.must_be("lazy", False)

    def take(self, name: str, default: Any = None) -> Any:
        """Return an argument; of a list with a value for each key, the image's."""
        value = self._left.pop(name, default)
        if len(self.keys) > 1 and isinstance(value, list) and len(value) == len(self.keys):
            return value[self.keys.index(IMAGE)]
        return value

    def sizes(self, name: str, dimensions: int | None) -> list[int]:
        """Return an argument that is a size of images. Raises: BundleError if it leaves a side open."""
        stated = self._left.pop(name, None)
        found = [stated] * dimensions if isinstance(stated, int) and dimensions else stated
        if not isinstance(found, list) or not all(isinstance(edge, int) and edge > 0 for edge in found):
            self._refuse(f"{name} leaves a side open, and a study's images have one size", "State every side.")
        return list(found)

    def must_be(self, name: str, *values: Any) -> None:
        """Refuse an argument with a value that no step of a study has."""
        if name in self._left and self.take(name) not in values:
            known = " or ".join(map(repr, values))
            self._refuse(f"{name} has a value that a study's step cannot have", f"Known: {known}.")

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        if self._left:
            names = ", ".join(sorted(self._left)[:5])
            self._refuse(f"a study's step has no {names}", "Leave it out if it may.")

    def _refuse(self, words: str, remedy: str) -> None:
        raise BundleError(f"{self.name}: {words}.", remedy)


def _loading(stated: Arguments) -> None:
    stated.must_be("reader", None, "PydicomReader", "ITKReader", "NibabelReader", "PILReader", "NrrdReader")
    for name in ("dtype", "image_only", "ensure_channel_first", "simple_keys", "prune_meta_pattern", "prune_meta_sep"):
        stated.take(name)


def _channels(stated: Arguments) -> None:
    for name in ("strict_check", "channel_dim"):
        stated.take(name)


def _container(stated: Arguments) -> None:
    for name in ("data_type", "device", "wrap_sequence", "track_meta"):
        stated.take(name)
    stated.must_be("dtype", None, "float32", "torch.float32", "np.float32", "numpy.float32")


PASSED_OVER: Mapping[str, Callable[[Arguments], None]] = {
    "LoadImage": _loading,
    "EnsureChannelFirst": _channels,
    "EnsureType": _container,
    "ToDevice": _container,
    "CastToType": _container,
    "ToTensor": _container,
}


def _orientation(stated: Arguments, _dimensions: int | None) -> Stated:
    stated.must_be("as_closest_canonical", False)
    stated.must_be("labels", None, [["L", "R"], ["P", "A"], ["I", "S"]])
    return {"axcodes": stated.take("axcodes")}


def _spacing(stated: Arguments, _dimensions: int | None) -> Stated:
    stated.must_be("mode", "bilinear")
    stated.must_be("padding_mode", "border")
    for name in ("diagonal", "align_corners", "scale_extent", "recompute_affine"):
        stated.must_be(name, False)
    stated.take("dtype")
    stated.take("ensure_same_shape")
    pixdim = stated.take("pixdim")
    return {"pixdim": [pixdim] * 3 if isinstance(pixdim, int | float) else pixdim}


def _of_one_channel(stated: Arguments) -> None:
    stated.must_be("channel_wise", False, True)  # the same thing, where there is one channel
    stated.take("dtype")


def _scale(stated: Arguments, _dimensions: int | None) -> Stated:
    _of_one_channel(stated)
    stated.must_be("factor", None)
    return {"minv": stated.take("minv", 0.0), "maxv": stated.take("maxv", 1.0)}


def _scale_range(stated: Arguments, _dimensions: int | None) -> Stated:
    _of_one_channel(stated)
    return {name: stated.take(name) for name in ("a_min", "a_max", "b_min", "b_max")} | {
        "clip": stated.take("clip", False)
    }


def _scale_percentiles(stated: Arguments, _dimensions: int | None) -> Stated:
    _of_one_channel(stated)
    stated.must_be("relative", False)
    return {name: stated.take(name) for name in ("lower", "upper", "b_min", "b_max")} | {
        "clip": stated.take("clip", False)
    }


def _normalise(stated: Arguments, _dimensions: int | None) -> Stated:
    _of_one_channel(stated)
    found: Stated = {"nonzero": stated.take("nonzero", False)}
    for name in ("subtrahend", "divisor"):
        value = stated.take(name)
        found[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return found


def _crop_foreground(stated: Arguments, _dimensions: int | None) -> Stated:
    stated.must_be("source_key", IMAGE)
    stated.must_be("channel_indices", None, 0, [0])
    stated.must_be("k_divisible", 1)
    stated.must_be("mode", "constant")
    for name in ("start_coord_key", "end_coord_key"):
        stated.take(name)
    return {"margin": stated.take("margin", 0), "allow_smaller": stated.take("allow_smaller", False)}


def _padding(stated: Arguments) -> None:
    stated.must_be("method", "symmetric")
    stated.must_be("mode", "constant")
    stated.must_be("value", 0, 0.0)
    stated.must_be("constant_values", 0, 0.0)


def _pad(stated: Arguments, dimensions: int | None) -> Stated:
    _padding(stated)
    return {"spatial_size": stated.sizes("spatial_size", dimensions)}


def _centre(stated: Arguments, dimensions: int | None) -> Stated:
    return {"roi_size": stated.sizes("roi_size", dimensions)}


def _resize(stated: Arguments, dimensions: int | None) -> Stated:
    stated.must_be("size_mode", "all")
    stated.must_be("align_corners", None, False)
    stated.must_be("anti_aliasing", False)
    stated.must_be("anti_aliasing_sigma", None)
    stated.take("dtype")
    mode = stated.take("mode", "area")
    modes = {"area": "area", "bilinear": "linear", "trilinear": "linear"}
    if mode not in modes:
        raise BundleError(f"{stated.name}: mode has a value that a study's step cannot have.", "Known: area, bilinear.")
    return {"spatial_size": stated.sizes("spatial_size", dimensions), "mode": modes[mode]}


STEPS: Mapping[str, Callable[[Arguments, int | None], Stated]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensity": _scale,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "NormalizeIntensity": _normalise,
    "CropForeground": _crop_foreground,
    "SpatialPad": _pad,
    "CenterSpatialCrop": _centre,
    "Resize": _resize,
    "ResizeWithPadOrCrop": _pad,
}


def step_of(name: str, stated: Mapping[str, Any], dimensions: int | None) -> Stated | None:
    """Return a study's step of one of MONAI's transforms of this name, without its final d; None if none is needed.

    Raises: BundleError naming the transform and what of it a study cannot have.
    """
    if name not in PASSED_OVER and name not in STEPS:
        drawn = "draws at random, which is of training: a study states preprocessing.augmentation"
        reason = drawn if name.startswith(RANDOM) else REFUSED.get(name, "a study has none")
        raise BundleError(f"{name}: {reason}.", "Take it out of the bundle's preprocessing, if it may.")
    arguments = Arguments(name, stated)
    if IMAGE not in arguments.keys:
        return None
    if name in PASSED_OVER:
        PASSED_OVER[name](arguments)
        arguments.finish()
        return None
    step = {"transform": name, **STEPS[name](arguments, dimensions)}
    arguments.finish()
    return step
