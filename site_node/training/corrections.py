"""What an algorithm adds to a step's gradient against the drift of sites whose patients differ: FedProx, SCAFFOLD.

    FedProx    mu (w - x): a pull back to the version x that the round began with
    SCAFFOLD   c - c_i: what the mean gradient of all sites has and this site's has not

and for the personal model v of Ditto (`personal.py`) lambda (v - x). Each is pull x (weights - towards) + shift, added
to the gradient *after* clipping and noise. It holds no patient: x and c come from the hub, c_i is made of the site's
own update, which with DP is made of noised gradients only. So a step's sensitivity is what it was, and the correction
is post-processing. Only parameters are corrected; running statistics of a BatchNorm have no gradient.

SCAFFOLD, option II: after K steps of learning rate eta from x to y, c_i' = c_i - c + (x - y) / (K eta), which is the
mean of the gradients that the site followed. It is computed from the difference y - x as it is handed to the steps of
`site_node/update/steps.py`: after clipping and noise, before compression and rounding. The hub computes the change of
its c from what arrives, so that a lossy codec makes the two differ by the codec's rounding. An update that the hub did
not count (late, refused, a failed round) leaves c without the change that the site has made to its c_i: the sum of
the c_i and c differ by it until the study ends.

Sources: Li et al. 2020, arXiv:1812.06127 (FedProx), equation 2; Karimireddy et al. 2020, arXiv:1910.06378 (SCAFFOLD),
Algorithm 1, equation 4; Li et al. 2021, arXiv:2012.04221 (Ditto), Algorithm 1.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.schedule import learning_rate_of
from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import BaseUnavailableError

CONTROL = "control"
"""The name of SCAFFOLD's control variate in the site's local state."""


@dataclass(frozen=True)
class Correction:
    """pull x (weights - towards) + shift, tensor by tensor; what is None is left out."""

    pull: float = 0.0
    towards: Weights | None = None
    shift: Weights | None = None

    def on(self, network: nn.Module) -> "FlatCorrection":
        """Return it over a network's parameters, in their order."""
        return FlatCorrection(self.pull, _flat(network, self.towards), _flat(network, self.shift))


@dataclass(frozen=True)
class FlatCorrection:
    """A correction as vectors. Shapes: towards, shift (parameter,)."""

    pull: float
    towards: Tensor | None
    shift: Tensor | None

    def added_to(self, gradient: Tensor, network: nn.Module) -> Tensor:
        """Return the corrected gradient at the network's present weights. Shapes: gradient, result (parameter,)."""
        if self.towards is not None and self.pull:
            now = nn.utils.parameters_to_vector(network.parameters()).detach()
            gradient = gradient + self.pull * (now - self.towards)
        return gradient if self.shift is None else gradient + self.shift


def proximal(study: StudySpec, version: Weights) -> Correction:
    """Return FedProx's pull to the round's version; none where the study asks for none."""
    strength = study.training.proximal
    return Correction(strength, version) if strength else Correction()


def scaffold(common: Weights | None, own: Weights | None) -> Correction:
    """Return SCAFFOLD's c - c_i; a control variate that is not there yet is zero."""
    if common is None and own is None:
        return Correction()
    names = (common or own or {}).keys()
    return Correction(shift={name: np.asarray(_of(common, name) - _of(own, name)) for name in names})


def next_control(
    study: StudySpec, round_number: int, common: Weights | None, own: Weights | None, update: Weights
) -> Weights:
    """Return SCAFFOLD's c_i after a round whose update (y - x) is given.

    Guarantee: a function of versions, control variates and the update alone, so with DP of noised gradients alone.
    Source: Karimireddy et al. 2020, equation 4, option II.
    """
    length = study.local_steps * learning_rate_of(study, round_number)
    return {
        name: np.asarray(_of(own, name) - _of(common, name) - moved.astype(np.float64) / length, np.float32)
        for name, moved in update.items()
    }


def _of(weights: Weights | None, name: str) -> NDArray[np.float32] | np.float32:
    return np.float32(0) if weights is None else weights[name]


def _flat(network: nn.Module, weights: Weights | None) -> Tensor | None:
    if weights is None:
        return None
    parts = []
    for name, parameter in network.named_parameters():
        array = weights.get(name)
        if array is None or array.shape != tuple(parameter.shape):
            raise BaseUnavailableError(
                "A control variate or version is not of the study's network.",
                "Do hub and site run the same release of Wardround and MONAI?",
            )
        parts.append(torch.from_numpy(array.astype(np.float32)).flatten())
    return torch.cat(parts).to(next(network.parameters()).device)
