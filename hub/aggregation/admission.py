"""Check an update while its bytes arrive: digest, size, names, shapes, finiteness, norm. Nothing is trusted before.

Bytes go in as they come (`write`), are digested, opened (`opening.py`), compared with the expected header, summed up in
squares, and go on to a sink; the first thing that is wrong raises, and no later byte is read. The checks hold no more
than a piece of the model in memory, so what an attacker sends can exhaust neither memory nor, past the expected size,
the disk. The signature and terms of the notice were checked before the first byte (`hub/rounds/uploads.py`).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hub.aggregation.chunks import sum_of_squares
from hub.aggregation.ciphertexts import CiphertextCheck
from hub.aggregation.opening import Bytes, Sink, opened_into
from hub.errors import AdmissionError
from protocol.compression.coding import CodingTerms
from protocol.compression.terms import most_upload_bytes, with_slack
from protocol.errors import TensorError
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.manifest import BYTES_PER_VALUE, MAX_HEADER_BYTES, Manifest
from protocol.secure_aggregation.vector import VectorTerms
from protocol.tensors import LENGTH_BYTES, LITTLE_ENDIAN, read_manifest

RESEND = "The site's administrator finds the task in `wardround site egress`; the round goes on without it."
# A version 0 brings its own manifest. Random weights hardly compress, so whoever announces few bytes gets few values:
# without this, thirty kilobytes of zstandard would become gigabytes of zeros on the hub's disk.
MODEST_BYTES = 1 << 20
LARGEST_EXPANSION = 16


@dataclass(frozen=True)
class Terms:
    """What a payload must be. `manifest` is None for a version 0, which brings its own, of the announced digest."""

    payload_digest: str
    payload_bytes: int
    steps: Sequence[str]
    manifest_digest: str
    manifest: Manifest | None
    norm_bound: Callable[[int], float]
    """From the number of parameters."""
    vector: VectorTerms | None = None
    """Set where the payload is a masked vector, of which only the form can be checked."""
    form: CiphertextForm | None = None
    """Set where the payload is an encrypted vector."""
    coding: CodingTerms | None = None
    """Set where the payload is an update by the steps of the study's codec; without it, it is a weights file."""


@dataclass(frozen=True)
class Admitted:
    """An update that passed all checks."""

    manifest: Manifest | None
    norm: float
    digest: str
    """Of the opened bytes, which are the blob."""


def check_announced_size(terms: Terms) -> None:
    """Refuse an announcement that no update of the manifest can have, before a byte is stored.

    Raises: AdmissionError.
    """
    if terms.manifest is None:
        return
    if terms.form is not None:
        if terms.payload_bytes != terms.form.file_bytes:
            expected = terms.form.file_bytes
            raise AdmissionError(
                f"Expected {expected} bytes of ciphertexts, {terms.payload_bytes} were announced.", RESEND
            )
        return
    if terms.vector is not None:
        if terms.payload_bytes != terms.vector.payload_bytes:
            expected = terms.vector.payload_bytes
            raise AdmissionError(
                f"Expected a vector of {expected} bytes, {terms.payload_bytes} were announced.", RESEND
            )
        return
    if terms.coding is None:
        _check_file_size(terms, terms.manifest)
    elif terms.payload_bytes > most_upload_bytes(terms.coding):
        most = most_upload_bytes(terms.coding)
        raise AdmissionError(f"An update here has at most {most} bytes, {terms.payload_bytes} were announced.", RESEND)


def _check_file_size(terms: Terms, manifest: Manifest) -> None:
    whole = manifest.payload_bytes
    if "zstandard" not in terms.steps:
        if terms.payload_bytes != whole:
            raise AdmissionError(f"Expected an update of {whole} bytes, {terms.payload_bytes} were announced.", RESEND)
        return
    most = with_slack(whole)
    if terms.payload_bytes > most:
        raise AdmissionError(f"An update here has at most {most} bytes, {terms.payload_bytes} were announced.", RESEND)


class UpdateCheck:
    """The checks of one payload; feed it all bytes in order, then ask for the verdict.

    `is_known`: this process itself found the bytes to have the announced digest (a simulation); the rest is checked.
    """

    def __init__(self, terms: Terms, sink: Sink, *, is_known: bool = False) -> None:
        self._terms = terms
        self._hasher = None if is_known else hashlib.sha256()
        self.received_bytes = 0
        self._values: _ValueCheck | _VectorCheck = _ValueCheck(terms, sink)
        if terms.form is not None:
            self._values = _VectorCheck(terms, CiphertextCheck(terms.form, sink))
        elif terms.vector is not None:
            self._values = _VectorCheck(terms, sink)
        self._opened = opened_into(self._values, zstandard_frame="zstandard" in terms.steps, coding=terms.coding)

    def write(self, data: Bytes, /) -> int:
        """Take the next bytes.

        Raises: AdmissionError at the first thing that is wrong.
        """
        if self.received_bytes + len(data) > self._terms.payload_bytes:
            raise AdmissionError("More bytes came than were announced.", RESEND)
        self.received_bytes += len(data)
        if self._hasher is not None:
            self._hasher.update(data)
        self._opened.write(data)
        return len(data)

    def finish(self) -> Admitted:
        """Return the verdict after the last byte.

        Raises: AdmissionError if bytes are missing or are not those that were announced.
        """
        if self.received_bytes != self._terms.payload_bytes:
            raise AdmissionError("The update is cut off: fewer bytes came than were announced.", RESEND)
        if self._hasher is not None and "sha256:" + self._hasher.hexdigest() != self._terms.payload_digest:
            raise AdmissionError("The bytes do not have the announced digest.", RESEND)
        return self._values.finish()


class _VectorCheck:
    """A masked vector: any bytes are one. Number and digest are checked above; the site's gate checked the rest."""

    def __init__(self, terms: Terms, sink: Sink) -> None:
        self._terms = terms
        self._sink = sink

    def write(self, data: Bytes, /) -> int:
        return self._sink.write(data)

    def finish(self) -> Admitted:
        return Admitted(self._terms.manifest, 0.0, self._terms.payload_digest)


class _ValueCheck:
    """The opened bytes: a header, then finite float32 values within the norm."""

    def __init__(self, terms: Terms, sink: Sink) -> None:
        self._terms = terms
        self._sink = sink
        self._manifest: Manifest | None = None
        self._head = bytearray()
        self._rest = b""
        # Without a step to undo the opened bytes are the payload, whose digest is known already.
        self._hasher = hashlib.sha256() if len(terms.steps) > 1 else None
        self._seen_bytes = 0
        self._squares = 0.0
        self._bound = math.inf

    def write(self, data: Bytes, /) -> int:
        taken = len(data)
        if self._manifest is None:
            data = self._take_header(data)
        if data and self._manifest is not None:
            self._take_values(data, self._manifest)
        return taken

    def finish(self) -> Admitted:
        if self._manifest is None or self._seen_bytes != self._manifest.payload_bytes:
            raise AdmissionError("The update is cut off: values are missing after it was opened.", RESEND)
        digest = "sha256:" + self._hasher.hexdigest() if self._hasher else self._terms.payload_digest
        return Admitted(self._manifest, math.sqrt(self._squares), digest)

    def _pass_on(self, data: Bytes) -> None:
        if self._hasher is not None:
            self._hasher.update(data)
        self._sink.write(data)

    def _take_header(self, data: Bytes) -> Bytes:
        self._head += data
        if len(self._head) < LENGTH_BYTES:
            return b""
        size = int.from_bytes(self._head[:LENGTH_BYTES], "little") + LENGTH_BYTES
        limit = MAX_HEADER_BYTES if self._terms.manifest is None else len(self._terms.manifest.header)
        if size > limit:
            raise AdmissionError("The update's header is larger than that of the expected model.", RESEND)
        if len(self._head) < size:
            return b""
        header, values = bytes(self._head[:size]), bytes(self._head[size:])
        self._manifest = self._checked_manifest(header)
        self._bound = self._terms.norm_bound(self._manifest.parameters)
        self._head.clear()
        self._seen_bytes = size
        self._pass_on(header)
        return values

    def _checked_manifest(self, header: bytes) -> Manifest:
        expected = self._terms.manifest
        if expected is not None:
            if header != expected.header:
                raise AdmissionError("The update's tensors are not those of the version it starts from.", RESEND)
            return expected
        try:
            manifest = read_manifest(header)
        except TensorError as error:
            raise AdmissionError(f"The weights have no usable header. {error}", RESEND) from None
        if manifest.digest != self._terms.manifest_digest:
            raise AdmissionError("The weights' names and shapes are not those that were announced.", RESEND)
        if manifest.payload_bytes > max(MODEST_BYTES, LARGEST_EXPANSION * self._terms.payload_bytes):
            raise AdmissionError(
                f"The weights open to more than {LARGEST_EXPANSION} times the bytes that were sent.",
                "Send them with transport.upload: [].",
            )
        return manifest

    def _take_values(self, data: Bytes, manifest: Manifest) -> None:
        self._seen_bytes += len(data)
        if self._seen_bytes > manifest.payload_bytes:
            raise AdmissionError("The update holds more values than its model has.", RESEND)
        self._pass_on(data)
        joined = self._rest + data if self._rest else data
        whole = len(joined) // BYTES_PER_VALUE * BYTES_PER_VALUE
        self._rest = bytes(joined[whole:])
        if not whole:
            return
        self._squares += sum_of_squares(np.frombuffer(joined, LITTLE_ENDIAN, whole // BYTES_PER_VALUE))
        if not math.isfinite(self._squares):
            raise AdmissionError("The update holds a value that is not finite.", RESEND)
        if self._squares > self._bound**2:
            raise AdmissionError(f"The update's norm is above the bound of {self._bound:.3g}.", RESEND)
