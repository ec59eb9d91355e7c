"""What a kind of outcome gives to training and evaluation; one file beside this one for each (`protocol/outcome.py`).

Training asks for the number of the network's outputs, the targets and the loss; clipping, noise and the steps know no
more of it. Evaluation asks for the counts of a split: whatever merges by adding, and goes into a field of its own of
the evaluation report (`protocol/held_out.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from protocol.study import StudySpec
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss

if TYPE_CHECKING:
    from site_node.training.prepared_patients import PreparedPatients

Targets = NDArray[np.float32]
"""(image, ...): what the loss compares an image's outputs with, as the objective says."""


class TargetsOf(Protocol):
    """Makes the targets of patients' images."""

    def __call__(self, study: StudySpec, patients: Sequence[Patient], /) -> Targets:
        """Return a target for each image of the patients, in their order. Shapes: result (image, ...)."""


class LossOf(Protocol):
    """Makes the loss of a study."""

    def __call__(self, study: StudySpec, /) -> Loss:
        """Return the loss of each image. Shapes: outputs (image, output, ...), targets (image, ...) -> (image,)."""


class CountsOf(Protocol):
    """Counts one split's held-out patients."""

    def __call__(
        self, study: StudySpec, outputs: Iterable[Tensor], patients: "PreparedPatients", noise: NoiseSource, /
    ) -> Any:
        """Return what leaves of one split, noised as the study says.

        Shapes: outputs, the network's for the split's images, some images at a time in their order, each
            (some images, output, ...) float64.
        """


class NobodyCounted(Protocol):
    """Counts a split that a site has no patients of, which under masks leaves all the same."""

    def __call__(self, study: StudySpec, noise: NoiseSource, /) -> Any:
        """Return the counts of nobody, noised as the study says."""


@dataclass(frozen=True)
class Objective:
    """A kind of outcome. `compares_patients`: its loss is of a batch as a whole, so that no gradient is one patient's.

    `of_nobody` is None where counts never leave under masks.
    """

    outputs: int
    targets: TargetsOf
    loss: LossOf
    counts: CountsOf
    of_nobody: NobodyCounted | None = None
    compares_patients: bool = False
