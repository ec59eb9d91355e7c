"""How like two pictures are: correlation, peak signal-to-noise ratio, structural similarity.

Sources: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity" (MONAI's form, a
window of 11 pixels with a Gaussian of deviation 1.5); PSNR is 10 log10(1 / mean squared error) on the original's range.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.metrics.regression import SSIMMetric
from numpy.typing import NDArray

WINDOW = 11


@dataclass(frozen=True)
class Similarity:
    """Equal pictures have correlation 1, structural similarity 1, and an infinite ratio."""

    correlation: float
    psnr_db: float
    ssim: float

    def document(self) -> dict[str, float]:
        """Return the figures for JSON, to three digits."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def similarity(original: NDArray[np.float32], other: NDArray[np.float32]) -> Similarity:
    """Compare a picture with the original, both put on the original's range first.

    Shapes: (row, column), at least 11 pixels each way.
    """
    low, high = float(original.min()), float(original.max())
    one, two = ((np.clip(picture, low, high) - low) / max(high - low, 1e-12) for picture in (original, other))
    error = float(np.mean((one - two) ** 2))
    images = [torch.from_numpy(np.ascontiguousarray(picture, np.float32))[None, None] for picture in (one, two)]
    structural = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=WINDOW)(*images)
    deviations = float(one.std() * two.std())
    together = float(np.mean((one - one.mean()) * (two - two.mean())))
    return Similarity(
        correlation=together / deviations if deviations > 0 else 0.0,
        psnr_db=-10.0 * math.log10(error) if error > 0 else math.inf,
        ssim=float(structural.mean()),
    )
