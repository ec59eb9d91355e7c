"""Patients whose images, or rows of a table, are tensors, grouped by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from site_node.cohort.findings import Findings
from site_node.privacy.patient_batch import PatientBatch
from site_node.training.sealed_images import SealedImages


@dataclass(frozen=True)
class PreparedPatients:
    """Patients of one split. Never leaves the worker.

    Shapes: images (row, 1, *size) float16, of the whole cohort, usually sealed on disk, or of a tabular study its
        rows (row, feature) float32; rows (image,) which of them are this split's, those of one patient side by side;
        targets (image, ...) float32, what the study's objective compares with; first_image (patient + 1,) where each
        patient's images begin; labels (patient,) the patients' own; findings, in a multi-label study, one for each
        patient; masks (row, *size) of the whole cohort, in a segmentation study, which has no other targets.
        `left_out` is how many more of the split match the study and are kept out by their spent budget; `told` is the
        number of training patients as it left with noise, None where it left exact.
    """

    images: NDArray[np.float16] | NDArray[np.float32] | SealedImages
    rows: NDArray[np.int64]
    targets: NDArray[np.float32]
    first_image: NDArray[np.int64]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8] | SealedImages | None = None
    left_out: int = 0
    told: int | None = None
    findings: tuple[Findings, ...] = ()

    @property
    def patients(self) -> int:
        """Return the number of patients."""
        return len(self.labels)

    @property
    def public_figure(self) -> int:
        """Return the number that the site tells: what it trains with is divided and weighted by this one."""
        return self.patients + self.left_out if self.told is None else self.told

    def images_of(self, patient: int) -> NDArray[np.int64]:
        """Return the numbers of a patient's images."""
        return np.arange(self.first_image[patient], self.first_image[patient + 1])

    def pixels_of(self, numbers: NDArray[np.int64]) -> Tensor:
        """Return images by their numbers.

        Shapes: numbers (image,); result (image, 1, *size) or (image, feature) float32.
        """
        return torch.from_numpy(self.images[self.rows[numbers]].astype(np.float32))

    def targets_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what the objective compares images with: of a segmentation study, their masks.

        Shapes: numbers (image,); result (image, ...) float32, of masks (image, *size).
        """
        if self.masks is None:
            return self.targets[numbers]
        return self.masks[self.rows[numbers]].astype(np.float32)

    def batch(self, images: Sequence[NDArray[np.int64]], device: torch.device) -> PatientBatch:
        """Collect the chosen images of some patients, one array of image numbers for each patient."""
        numbers = np.concatenate([np.empty(0, np.int64), *images])
        return PatientBatch(
            self.pixels_of(numbers).to(device),
            torch.from_numpy(self.targets_of(numbers)).to(device),
            torch.tensor([len(chosen) for chosen in images], dtype=torch.int64, device=device),
        )
