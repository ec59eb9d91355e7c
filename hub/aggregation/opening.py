"""Undo the sites' steps in reverse, while the bytes arrive.

A site's steps are a visible list in its notice. `difference` and `weights` say what the values mean; `zstandard` is how
they travelled. This version opens each update by itself, at admission, so that what is stored can be summed as it is.
Source: RFC 8878 (Zstandard).
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import zstandard

from hub.errors import AdmissionError
from protocol.messages import TaskKind
from protocol.secure_aggregation.vector import MEANING, Producer

# A decoder keeps one window in memory; levels up to 19 need 8 MiB.
MAX_WINDOW_BYTES = 32 << 20
# Output is handed on in pieces of this size, whatever a small input swells to.
PIECE_BYTES = 256 << 10

Compression = Literal["none", "zstandard"]
Method = Literal["none", "masking", "homomorphic"]


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take bytes; raise to stop their source."""


def expected_steps(
    kind: TaskKind, compression: Compression, method: Method = "none", producer: Producer = "quantised"
) -> list[str]:
    """Return the list of steps that an answer to a task must have taken; `producer` made the integers under masks."""
    if kind is TaskKind.TRAIN and method == "masking":
        return [MEANING[producer], producer, "masked"]
    if kind is TaskKind.TRAIN and method == "homomorphic":
        return ["difference", "quantised", "encrypted"]
    if kind is TaskKind.DECRYPT:
        return ["decrypted"]
    meaning = "weights" if kind is TaskKind.INITIALISE else "difference"
    return [meaning] if compression == "none" else [meaning, "zstandard"]


def opened_into(sink: Sink, steps: Sequence[str]) -> Sink:
    """Return a sink that undoes the steps and writes what comes out into the given one.

    Guarantee: memory is one decoder window and one piece, also for input that swells a millionfold: the given sink sees
        every piece before the next one is made, and may raise.
    """
    return _Decompressing(sink) if "zstandard" in steps else sink


class _Decompressing:
    def __init__(self, sink: Sink) -> None:
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._writer = decoder.stream_writer(sink, write_size=PIECE_BYTES, closefd=False)  # type: ignore[arg-type]

    def write(self, data: bytes, /) -> int:
        try:
            return self._writer.write(data)
        except zstandard.ZstdError:
            raise AdmissionError(
                "The update is not a Zstandard frame, or is damaged.", "Send the file again."
            ) from None
