"""Undo the sites' steps in reverse, while the bytes arrive.

A site's steps are a visible list in its notice. `difference` and `weights` say what the values mean; the study's codec
steps (`protocol/compression/`) are how they travelled. This version opens each update by itself, at admission, into a
weights file, so that what is stored can be summed as it is, however it came.
Source: RFC 8878 (Zstandard).
"""

from typing import Protocol

import zstandard

from hub.errors import AdmissionError
from protocol.compression.coding import CodingTerms, Decoder
from protocol.compression.terms import upload_steps
from protocol.errors import CodecError
from protocol.messages import TaskKind
from protocol.secure_aggregation.vector import MEANING, producer_of
from protocol.study import StudySpec
from protocol.tensors import LITTLE_ENDIAN

# A decoder keeps one window in memory; levels up to 19 need 8 MiB.
MAX_WINDOW_BYTES = 32 << 20
# Output is handed on in pieces of this size, whatever a small input swells to.
PIECE_BYTES = 256 << 10
RESEND = "The site's administrator finds the task in `wardround site egress`; the round goes on without it."


Bytes = bytes | bytearray | memoryview
"""As they come from the network; a sink that keeps them for later makes a copy."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: Bytes, /) -> int:
        """Take bytes; raise to stop their source."""


def expected_steps(kind: TaskKind, study: StudySpec) -> list[str]:
    """Return the list of steps that an answer to a task must have taken."""
    method, steps = study.secure_aggregation.method, upload_steps(study)
    if kind is TaskKind.TRAIN and method != "none":
        producer = producer_of(study)
        return [MEANING[producer], *steps.names, producer, "masked" if method == "masking" else "encrypted"]
    if kind is TaskKind.DECRYPT:
        return ["decrypted"]
    if kind is TaskKind.INITIALISE:
        return ["weights", "zstandard"] if steps.zstandard else ["weights"]  # any site can rebuild it: nothing is lost
    return ["difference", *steps.names]


def opened_into(sink: Sink, *, zstandard_frame: bool, coding: CodingTerms | None = None) -> Sink:
    """Return a sink that undoes the steps and writes the weights file that comes out into the given one.

    Guarantee: memory is one decoder window, one piece and one block of values, also for input that swells a
        millionfold: the given sink sees every piece before the next one is made, and may raise.
    """
    inner = sink if coding is None else _Decoding(sink, coding)
    return _Decompressing(inner) if zstandard_frame else inner


class _Decompressing:
    def __init__(self, sink: Sink) -> None:
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._writer = decoder.stream_writer(sink, write_size=PIECE_BYTES, closefd=False)  # type: ignore[arg-type]

    def write(self, data: Bytes, /) -> int:
        try:
            return self._writer.write(data)
        except zstandard.ZstdError:
            raise AdmissionError(
                "The update is not a Zstandard frame, or is damaged.", "Send the file again."
            ) from None


class _Decoding:
    """Coded values as the weights file that they stand for; its header is the one that the study's model has."""

    def __init__(self, sink: Sink, terms: CodingTerms) -> None:
        self._sink = sink
        self._decoder = Decoder(terms)
        self._header = terms.manifest.header

    def write(self, data: Bytes, /) -> int:
        if self._header:
            self._sink.write(self._header)
            self._header = b""
        try:
            for values in self._decoder.feed(bytes(data)):
                self._sink.write(values.astype(LITTLE_ENDIAN, copy=False).tobytes())
        except CodecError as error:
            raise AdmissionError(f"The update is not coded as the study says. {error}", RESEND) from None
        return len(data)
