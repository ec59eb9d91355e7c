"""A network as ONNX and TorchScript, each kept only where it gives the network's own outputs.

Sources: ONNX (onnx.ai), exported by torch.onnx through onnxscript; TorchScript by tracing.
"""

import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

TOLERANCE = 1e-4
BATCHES = (1, 3)
"""Sizes of the batches that are compared; another than the one that was traced is among them."""

Output = NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """A network in another format, or why not."""

    content: bytes | None
    refusal: str | None


def as_torchscript(network: nn.Module, shape: tuple[int, ...]) -> Written:
    """Return a network as TorchScript. Shapes: `shape` is one image's, without the batch."""

    def write() -> tuple[bytes, Callable[[Output], Output]]:
        scripted = torch.jit.trace(network, torch.zeros(2, *shape), check_trace=False)  # type: ignore[no-untyped-call]
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        again = torch.jit.load(io.BytesIO(buffer.getvalue()))  # type: ignore[no-untyped-call]
        return buffer.getvalue(), lambda images: np.asarray(again(torch.from_numpy(images)).numpy(), np.float32)

    return _compared("TorchScript", network, shape, write)


def as_onnx(network: nn.Module, shape: tuple[int, ...]) -> Written:
    """Return a network as ONNX, with a free batch size. Shapes: `shape` is one image's, without the batch."""

    def write() -> tuple[bytes, Callable[[Output], Output]]:
        import onnxruntime

        program = torch.onnx.export(
            network, (torch.zeros(2, *shape),), input_names=["image"], output_names=["pred"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), dynamo=True, verbose=False,
        )  # fmt: skip
        if program is None:
            raise RuntimeError("torch.onnx made no program")
        content: bytes = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return content, lambda images: np.asarray(session.run(None, {name: images})[0], np.float32)

    return _compared("ONNX", network, shape, write)


def _compared(
    name: str,
    network: nn.Module,
    shape: tuple[int, ...],
    write: Callable[[], tuple[bytes, Callable[[Output], Output]]],
) -> Written:
    network = network.cpu().eval()
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # torchvision's absence, of which no network here knows
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of formats that their own makers call old, and of what tracing assumes
            content, run = write()
            farthest = max(_distance(network, run, (batch, *shape)) for batch in BATCHES)
    except ImportError as error:
        return Written(None, f"{name} needs the package {error.name!r}: pip install 'wardround[bundles]'.")
    except Exception as error:  # exporters raise whatever a network leads them to
        return Written(None, f"{name} does not hold this network ({type(error).__name__}).")
    finally:
        exporter.setLevel(level)
    if not farthest <= TOLERANCE:
        return Written(None, f"As {name} the network gives other outputs: they differ by {farthest:.2g}.")
    return Written(content, None)


def _distance(network: nn.Module, run: Callable[[Output], Output], shape: tuple[int, ...]) -> float:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    expected = network(images).numpy()
    found = run(images.numpy())
    return float(np.abs(expected - found).max()) if expected.shape == found.shape else float("inf")
