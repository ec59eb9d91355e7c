"""The images of a step's drawn patients, grouped by patient.

Example: counts [1, 1, 3] are three patients with five images: two runs, one of two patients with an image each and one
of a patient with three.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (image, output, ...), targets (image, ...)) -> (image,) losses."""


@dataclass(frozen=True)
class Run:
    """Neighbouring patients of a batch who have equally many images."""

    first_patient: int
    patients: int
    first_image: int
    images_each: int

    def parts(self, patients_at_once: int) -> Iterator["Run"]:
        """Cut into runs of at most so many patients."""
        for done in range(0, self.patients, patients_at_once):
            patients = min(patients_at_once, self.patients - done)
            yield Run(self.first_patient + done, patients, self.first_image + done * self.images_each, self.images_each)

    def images_of(self, values: Tensor) -> Tensor:
        """Return the run's images. Shapes: values (image of the batch, ...); result (patient, image of theirs, ...)."""
        images = values[self.first_image : self.first_image + self.patients * self.images_each]
        return images.view(self.patients, self.images_each, *values.shape[1:])


@dataclass(frozen=True)
class PatientBatch:
    """The drawn patients' images, those of one patient side by side.

    Shapes: images (image, 1, *size) float32; targets (image, ...) float32; counts (patient,) int64, each at least 1,
        their sum is the number of images.
    """

    images: Tensor
    targets: Tensor
    counts: Tensor

    @property
    def patients(self) -> int:
        """Return how many patients were drawn. Not public: it depends on the secret stream."""
        return int(self.counts.numel())

    @cached_property
    def owners(self) -> Tensor:
        """Return the number of each image's patient. Shapes: result (image,) int64."""
        return torch.repeat_interleave(torch.arange(self.patients, device=self.counts.device), self.counts)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Return the runs of patients with equally many images, in order."""
        runs: list[Run] = []
        patient = image = 0
        counts, lengths = torch.unique_consecutive(self.counts, return_counts=True)
        for count, length in zip(counts.tolist(), lengths.tolist(), strict=True):
            runs.append(Run(patient, length, image, count))
            patient, image = patient + length, image + length * count
        return tuple(runs)

    def by_count(self) -> "PatientBatch":
        """Return the patients ordered by their number of images, which makes few runs; otherwise in their old order."""
        if bool((self.counts.diff() >= 0).all()):
            return self
        order = torch.argsort(self.counts, stable=True)
        first_image = torch.cumsum(self.counts, 0) - self.counts
        images = torch.cat([torch.arange(int(first_image[p]), int(first_image[p] + self.counts[p])) for p in order])
        images = images.to(self.images.device)
        return PatientBatch(self.images[images], self.targets[images], self.counts[order])

    def chunks(self, images_at_once: int) -> Iterator["PatientBatch"]:
        """Cut into parts of whole patients with at most so many images, or one patient with more."""
        first_patient = first_image = images = 0
        for patient, count in enumerate(self.counts.tolist()):
            if images and images + count > images_at_once:
                yield self._part(first_patient, patient, first_image, first_image + images)
                first_patient, first_image, images = patient, first_image + images, 0
            images += count
        if images:
            yield self._part(first_patient, self.patients, first_image, first_image + images)

    def sum_of_each(self, values: Tensor) -> Tensor:
        """Sum over each patient's images. Shapes: values (image, ...); result (patient, ...)."""
        if self.patients == len(values):  # one image each: nothing to add, no copy
            return values
        return values.new_zeros((self.patients, *values.shape[1:])).index_add_(0, self.owners, values)

    def _part(self, first: int, last: int, first_image: int, last_image: int) -> "PatientBatch":
        images = slice(first_image, last_image)
        return PatientBatch(self.images[images], self.targets[images], self.counts[first:last])
