"""The hub's part of homomorphic encryption: check ciphertexts as they arrive, and add them. It holds no key.

Everything here is arithmetic on range-checked integers: no native library reads what sites send. Memory is a window
over the files, however many there are and however large.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from hub.aggregation.opening import Bytes, Sink
from hub.errors import AdmissionError, AggregationError
from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import (
    CiphertextForm,
    add,
    coefficients_of,
    packed,
    record_bytes,
    records_from,
)

WINDOW_BYTES = 16 << 20
RESEND = "The site's administrator finds the task in `wardround site egress`; the round goes on without it."


class CiphertextCheck:
    """The form of one ciphertext file; feed it all bytes in order, then finish. Its digest is checked around it."""

    def __init__(self, form: CiphertextForm, sink: Sink) -> None:
        self._form = form
        self._header = form.header
        self._sink = sink
        self._rest = b""
        self._in_header = True
        self._seen_bytes = 0

    def write(self, data: Bytes, /) -> int:
        """Take the next bytes.

        Raises: AdmissionError at the first thing that is wrong.
        """
        self._seen_bytes += len(data)
        if self._seen_bytes > self._form.file_bytes:
            raise AdmissionError("More bytes came than an encrypted update of this round has.", RESEND)
        self._check(self._rest + data)
        self._sink.write(data)
        return len(data)

    def finish(self) -> None:
        """Check that the last byte has come.

        Raises: AdmissionError if bytes are missing.
        """
        if self._seen_bytes != self._form.file_bytes:
            raise AdmissionError("The encrypted update is cut off: fewer bytes came than it has.", RESEND)

    def _check(self, data: bytes) -> None:
        if self._in_header:
            size = len(self._header)
            if data[:size] != self._header[: len(data)]:
                raise AdmissionError(
                    "The update is not encrypted for this study and round, under its key and parameters.", RESEND
                )
            if len(data) < size:
                self._rest = data
                return
            self._in_header, data = False, data[size:]
        parameters = self._form.packing.parameters
        whole = len(data) // record_bytes(parameters) * record_bytes(parameters)
        self._rest = data[whole:]
        try:
            coefficients_of(records_from(memoryview(data)[:whole], parameters), parameters)
        except EncryptionError as error:
            raise AdmissionError(str(error), RESEND) from None


def summed(
    paths: Sequence[Path], digests: Sequence[str], form: CiphertextForm, window_bytes: int = WINDOW_BYTES
) -> Iterator[bytes]:
    """Yield the bytes of the sum of ciphertext files, in pieces.

    Guarantee: the sum decrypts to the sum of what the files decrypt to; it does not depend on the order but for the
        digests in its header.
    Raises: AggregationError if a file is missing, of another size, or damaged.
    """
    parameters = form.packing.parameters
    size = record_bytes(parameters)
    step = max(1, window_bytes // (size * max(1, len(paths))))
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path, form)) for path in paths]
        yield form.sum_header(digests)
        for start in range(0, form.ciphertexts, step):
            count = min(step, form.ciphertexts - start)
            windows = (records_from(_read(file, count * size), parameters) for file in files)
            try:
                total = add((coefficients_of(window, parameters) for window in windows), parameters)
            except EncryptionError as error:
                raise AggregationError(f"Ciphertexts cannot be added. {error}", "Restore the blobs.") from None
            yield packed(total).tobytes()


def _opened(path: Path, form: CiphertextForm) -> BinaryIO:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise AggregationError("A ciphertext that was accepted is missing.", "Restore the blobs.") from None
    if path.stat().st_size != form.file_bytes or file.read(len(form.header)) != form.header:
        file.close()
        raise AggregationError("A blob is no encrypted update of this round.", "Restore the blobs from a backup.")
    return file


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise AggregationError("A ciphertext is cut off.", "Restore the blobs from a backup.")
    return data
