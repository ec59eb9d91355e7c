from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from protocol.messages import Reason
from site_node.errors import BaseUnavailableError, UnknownNetworkError
from site_node.training.networks import (
    PERMITTED,
    GridAverage,
    build_network,
    images_at_once,
    initial_weights,
    load_into,
    threads_worth,
    weights_of,
)
from tests.site_node.training.examples import make_study

IMAGE_NETWORKS = sorted(
    name for name, network in PERMITTED.items() if (network.reads, network.gives) == ("images", "outputs")
)


@pytest.mark.parametrize("size", [(28, 28), (40, 64), (16, 16, 16)], ids=str)
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_every_permitted_network_gives_one_logit_an_image(name: str, size: Sequence[int]) -> None:
    network = build_network(make_study(name, size, arguments={}))
    assert network(torch.randn(3, 1, *size)).shape == (3, 1)


@pytest.mark.parametrize("normalisation", ["group", "layer", "instance", "none"])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_no_network_mixes_the_images_of_a_batch(name: str, normalisation: str) -> None:
    network = build_network(make_study(name, (32, 32), normalisation=normalisation)).train()
    images = torch.randn(4, 1, 32, 32)
    assert not any(isinstance(module, _BatchNorm) for module in network.modules())
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_no_module_works_in_place_or_stands_twice(name: str) -> None:
    network = build_network(make_study(name, (32, 32)))
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    names = [parameter for parameter, _ in network.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(network.parameters()))


def test_groups_are_lowered_where_they_do_not_divide_the_channels() -> None:
    network = build_network(make_study(arguments={"channels": [6], "strides": [2], "kernels": [3], "groups": 4}))
    assert [m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)] == [2]


def test_batchnorm_is_there_only_without_privacy() -> None:
    plain = make_study(epsilon=None, normalisation="batch")
    assert any(isinstance(module, _BatchNorm) for module in build_network(plain).modules())
    private = plain.model_copy(update={"privacy": make_study().privacy})
    with pytest.raises(UnknownNetworkError, match="BatchNorm mixes the patients"):
        build_network(private)


def test_batchnorm_statistics_travel_with_the_weights() -> None:
    weights = initial_weights(make_study(epsilon=None, normalisation="batch"))
    assert any("running_mean" in name for name in weights)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNetworkError, match=r"'other' is not permitted.*convnet, densenet") as caught:
        build_network(make_study("other"))
    assert caught.value.reason == Reason.UNKNOWN_NETWORK


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"depth": 3}, "depth: Extra inputs are not permitted"),
        ({"channels": [4, 8]}, "equally long"),
        ({"channels": [0, 8, 8]}, "channels.0"),
        ({"kernels": [4, 3, 3]}, "must be odd"),
        ({"groups": "eight"}, "groups"),
        ({"channels": [2048] * 12, "strides": [1] * 12, "kernels": [9] * 12, "head": 1}, "parameters"),
    ],
)
def test_arguments_that_are_not_permitted_are_refused_by_name(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownNetworkError, match=said):
        build_network(make_study(arguments=arguments))


def test_images_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(UnknownNetworkError, match="too small"):
        build_network(make_study("densenet", (8, 8), arguments={"block_config": [1, 1, 1, 1, 1]}))


def test_version_0_follows_from_the_study_alone() -> None:
    torch.manual_seed(1)
    one = initial_weights(make_study())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = initial_weights(make_study())
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)  # and nobody else's chance is disturbed


def test_weights_come_back_as_they_were_set() -> None:
    network = build_network(make_study())
    weights = {name: array + 1 for name, array in weights_of(network).items()}
    load_into(network, weights)
    assert all(np.array_equal(array, weights[name]) for name, array in weights_of(network).items())


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(BaseUnavailableError, match="not those of the study's network"):
        load_into(build_network(make_study()), initial_weights(make_study("resnet")))


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (9, 7), (4, 8, 6), (3, 3, 3)], ids=str)
def test_a_grid_average_is_adaptive_pooling(size: Sequence[int]) -> None:
    maps = torch.randn(2, 3, *size)
    adaptive = nn.AdaptiveAvgPool2d(4) if len(size) == 2 else nn.AdaptiveAvgPool3d(4)
    assert torch.allclose(GridAverage(4)(maps), adaptive(maps), atol=1e-6)


def test_small_networks_are_given_one_thread_and_large_ones_many() -> None:
    large = {"layers": [2, 2, 2, 2], "planes": [64, 128, 256, 512]}
    assert threads_worth(make_study(), 8) == 1
    assert threads_worth(make_study("resnet", (128, 128), arguments=large), 8) == 8


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_a_private_step_takes_fewer_of_larger_images_together_and_at_least_one(name: str) -> None:
    small, large, huge = (images_at_once(make_study(name, size)) for size in ((32, 32), (64, 64), (256, 256, 256)))
    assert small == 4 * large == PERMITTED[name].pixels_at_once // 32**2
    assert huge == 1
