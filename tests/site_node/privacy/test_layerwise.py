from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from site_node.privacy import layer_shares
from site_node.privacy.layer_shares import Booked, Held
from site_node.privacy.layerwise import LayerwiseGradients, covers
from site_node.privacy.patient_batch import PatientBatch
from site_node.privacy.per_image import HeldGradients
from site_node.training.networks import PERMITTED, build_network
from site_node.training.objectives.binary import cross_entropy
from tests.site_node.privacy.examples import UNEVEN, distance, make_exact, make_network, one_by_one
from tests.site_node.training.examples import make_batch, make_study


class Scale(nn.Module):
    """A layer of a kind that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.factor


def ending(*layers: nn.Module) -> nn.Sequential:
    """Return a network for 16 x 16 images of which these layers are the first."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(1))


def ready(network: nn.Module, batch: PatientBatch) -> nn.Module:
    network(batch.images.float())  # sizes the lazy layer
    return network.to(batch.images.dtype)


def plain_sum(network: nn.Module, batch: PatientBatch) -> Tensor:
    gradients = LayerwiseGradients(network, cross_entropy, batch)
    total = torch.zeros(sum(p.numel() for p in network.parameters()), dtype=torch.float64)
    gradients.add_weighted_sum(torch.ones(batch.patients, dtype=torch.float64), total)
    return total


@pytest.mark.parametrize("size", [(32, 32), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("normalisation", ["group", "instance", "layer", "none"])
@pytest.mark.parametrize(
    "name",
    sorted(name for name, n in PERMITTED.items() if (n.reads, n.gives) == ("images", "outputs") and name != "vit"),
)
def test_every_permitted_network_but_the_transformer_is_covered(
    name: str, normalisation: str, size: tuple[int, ...]
) -> None:
    assert covers(build_network(make_study(name, size, normalisation=normalisation, arguments={})))


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", ["convnet", "densenet", "resnet"])
def test_lengths_are_those_of_the_gradients_taken_image_by_image(name: str, size: tuple[int, ...]) -> None:
    network, batch = make_exact(name, size, UNEVEN)
    batch = batch.by_count()
    expected = HeldGradients.of(network, cross_entropy, batch).squares
    assert torch.allclose(LayerwiseGradients(network, cross_entropy, batch).squares, expected, rtol=1e-5)


@pytest.mark.parametrize("held_for_one", [0, 2, 10**9])
def test_holding_gradients_and_making_them_twice_give_the_same(
    held_for_one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_shares, "HELD_FOR_ONE", held_for_one)
    network, batch = make_exact("resnet18", (16, 16), [1, 1, 2])
    assert distance(plain_sum(network, batch), one_by_one(network, batch, 1e9)) < 1e-9


def test_a_large_network_keeps_books_and_a_small_one_holds_gradients() -> None:
    for name, kinds in (("resnet18", {Held, Booked}), ("convnet", {Held})):
        gradients = LayerwiseGradients(make_network(name, (32, 32)), cross_entropy, make_batch([1] * 4, (32, 32)))
        assert {type(share) for share in gradients._shares.values()} == kinds


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "grouped and dilated convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, stride=2)
    ),
    "uneven kernel": lambda: nn.Conv2d(1, 4, (3, 5), padding=(1, 2), stride=(2, 1)),
    "normalisation first": lambda: nn.Sequential(nn.GroupNorm(1, 1), nn.Conv2d(1, 4, 3)),
    "normalisation without parameters": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4, affine=False)),
    "linear layer at every position": lambda: nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)),
    "two beginnings": lambda: TwoBeginnings(),
}


class TwoBeginnings(nn.Module):
    """Two layers see the image itself; a third is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.idle = (nn.Conv2d(1, 3, 3, padding=1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        joined: Tensor = self.one(images) + self.other(images)
        return joined.relu()


@pytest.mark.parametrize("kind", list(LAYERS))
def test_other_layers_give_what_torch_func_gives(kind: str) -> None:
    torch.manual_seed(1)
    _, batch = make_exact("convnet", (16, 16), [1, 2, 2, 3])
    network = ready(ending(LAYERS[kind]()), batch)
    expected = HeldGradients.of(network, cross_entropy, batch)
    found = LayerwiseGradients(network, cross_entropy, batch)
    assert covers(network)
    assert torch.allclose(found.squares, expected.squares, rtol=1e-5)
    factors = torch.tensor([0.5, 1.0, 0.0, 0.25], dtype=torch.float64)
    totals = []
    for gradients in (found, expected):
        totals.append(torch.zeros(sum(p.numel() for p in network.parameters()), dtype=torch.float64))
        gradients.add_weighted_sum(factors, totals[-1])
    assert torch.allclose(totals[0], totals[1], atol=1e-10)


@pytest.mark.parametrize(
    "layer",
    [
        Scale(),
        nn.BatchNorm2d(1),
        nn.BatchNorm2d(1, affine=False),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(1, 1, 3),
    ],
    ids=lambda layer: str(layer).split("(")[0],
)
def test_a_layer_without_a_rule_is_not_covered(layer: nn.Module) -> None:
    assert not covers(nn.Sequential(nn.Conv2d(1, 1, 3), layer))


def test_layers_that_share_a_parameter_are_not_covered() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    assert not covers(network)


def test_a_layer_called_twice_is_refused() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    batch = make_batch([1, 1])
    with pytest.raises(ValueError, match="called once"):
        LayerwiseGradients(ready(ending(layer, layer), batch), cross_entropy, batch)


class ChangesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images) * 1.0
        result: Tensor = self.second(maps)
        maps.mul_(2.0)
        return result


def test_an_input_that_was_changed_in_place_is_refused() -> None:
    batch = make_batch([1, 1])
    with pytest.raises(ValueError, match="stay as it was"):
        LayerwiseGradients(ready(ending(ChangesItsInput()), batch), cross_entropy, batch)


def test_the_network_is_left_as_it_was() -> None:
    network, batch = make_network("resnet", (16, 16)), make_batch([1, 2])
    frozen = next(network.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    LayerwiseGradients(network, cross_entropy, batch)
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    assert not frozen.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
