"""What the next step of a training depends on, beside the study and its data: taken after a step, and put back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from site_node.privacy.noise import NoiseSource
from site_node.training.parts import Parts

NETWORK, OPTIMIZER = "network.", "optimizer."


@dataclass(frozen=True)
class TrainingState:
    """A training after so many steps (`step`). `positions` are those of the secret streams: as secret as the draws.

    Shapes: tensors NETWORK + name as the network's state has them, OPTIMIZER + parameter's number + name.
    """

    step: int
    images_at_once: int
    positions: Mapping[str, int]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Running:
    """What a step changes."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    noise: NoiseSource
    parts: Parts

    def state(self, step: int) -> TrainingState:
        """Return the state after a step; its tensors share memory with the training's."""
        tensors = {f"{NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()}
        for number, kept in self.optimizer.state_dict()["state"].items():
            for name, value in kept.items():
                if value is not None:  # SGD without momentum keeps the place of one
                    tensors[f"{OPTIMIZER}{number}.{name}"] = torch.as_tensor(value)
        return TrainingState(step, self.parts.images_at_once, self.noise.positions(), tensors)

    def go_on_from(self, state: TrainingState) -> None:
        """Put a state back. Guarantee: the next step is what it would have been where the state was taken."""
        tensors = state.tensors.items()
        self.network.load_state_dict({k.removeprefix(NETWORK): t for k, t in tensors if k.startswith(NETWORK)})
        kept: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors:
            if key.startswith(OPTIMIZER):
                number, _, name = key.removeprefix(OPTIMIZER).partition(".")
                kept.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": kept})
        self.parts.images_at_once = min(self.parts.images_at_once, state.images_at_once)
        self.noise.move_to(state.positions)
