"""Window and level: how values become greys on a screen. For display only; no network ever sees a windowed value.

Source: DICOM PS3.3 C.11.2.1.2 (LINEAR, where a centre c and a width w mean the values from c - 0.5 - (w-1)/2 to
c - 0.5 + (w-1)/2) and C.11.2.1.3 (LINEAR_EXACT, SIGMOID).

>>> window = Window(centre=40, width=401)
>>> [round(float(grey), 3) for grey in displayed(np.array([-200.0, 39.5, 300.0]), window)]
[0.0, 0.5, 1.0]
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom.element_value import first_value
from site_node.dicom.functional_groups import functional_group

Kind = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
KINDS: dict[str, Kind] = {"LINEAR": "LINEAR", "LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
SMALLEST_WIDTH = 1e-30


@dataclass(frozen=True)
class Window:
    """A centre and a width, in the units of the rescaled values, and the curve between black and white.

    Raises: ValueError if the width is not what the standard allows: at least 1 for LINEAR, else above 0.
    """

    centre: float
    width: float
    kind: Kind = "LINEAR"

    def __post_init__(self) -> None:
        """Refuse a width that the formula does not allow."""
        if not np.isfinite([self.centre, self.width]).all():
            raise ValueError("a window's centre and width are finite numbers")
        if self.width < 1 if self.kind == "LINEAR" else self.width <= 0:
            raise ValueError("a window's width is at least 1 for LINEAR, and above 0 for the other curves")


def displayed(values: NDArray[Any], window: Window) -> NDArray[np.float32]:
    """Return greys from 0 (black) to 1 (white) for rescaled values.

    Shapes: result as values, float32. MONOCHROME1 is not inverted here: 0 is what the standard calls y_min.
    """
    x = np.asarray(values, np.float64)
    if window.kind == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the centre the grey is 0, as it should be
            return np.asarray(1 / (1 + np.exp(-4 * (x - window.centre) / window.width)), np.float32)
    if window.kind == "LINEAR_EXACT":
        return np.asarray(np.clip((x - window.centre) / window.width + 0.5, 0, 1), np.float32)
    if window.width == 1:  # a step: the formula's slope would divide by nothing
        return np.asarray(x > window.centre - 0.5, np.float32)
    return np.asarray(np.clip((x - (window.centre - 0.5)) / (window.width - 1) + 0.5, 0, 1), np.float32)


def window_of(dataset: Dataset, values: NDArray[Any], frame: int = 0) -> Window:
    """Return the window that the header proposes for a frame, its first one, or else one around the frame's own values.

    Guarantee: there is always one, whatever the header holds.
    """
    group = functional_group(dataset, frame, "FrameVOILUTSequence")
    return _stated(group if group is not None else dataset) or _around(values)


def _stated(dataset: Dataset) -> Window | None:
    kind = KINDS.get(str(first_value(dataset, "VOILUTFunction") or "LINEAR").strip().upper(), "LINEAR")
    try:
        centre, width = (float(first_value(dataset, keyword)) for keyword in ("WindowCenter", "WindowWidth"))
        return Window(centre, width, kind)
    except (TypeError, ValueError):
        return None


def _around(values: NDArray[Any]) -> Window:
    low, high = (float(bound) for bound in np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)))
    return Window((low + high) / 2, max(high - low, SMALLEST_WIDTH), "LINEAR_EXACT")
