"""The gate's part of homomorphic encryption: encrypt an update; verify, add and decrypt a round's sum.

Files go through in windows of whole ciphertexts, so memory does not grow with the model or the number of sites. What
the gate decrypts is never what the hub calls the sum: it adds the signed ciphertexts of the sites itself, by SEAL, and
refuses if the hub's sum is another.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from protocol.digest import hex_of
from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import (
    CiphertextForm,
    Records,
    polynomial_bytes,
    record_bytes,
    records_from,
    unpacked,
)
from protocol.homomorphic.packing import Values, pack, unpack
from protocol.homomorphic.scheme import SecretKeyCipher
from site_node.errors import GateError

RESTART = "Nothing left. Restart the worker and the gate; if it comes again, report it."
REMEDY = "The round is not opened; the hub's log says which update it was."
READ_BYTES = 1 << 20


def encrypted(pieces: Iterable[Values], form: CiphertextForm, cipher: SecretKeyCipher) -> Iterator[bytes]:
    """Yield the bytes of an update's ciphertext file. Each call encrypts with fresh randomness.

    The pieces are the values of one ciphertext after another (`cut`).
    Raises: GateError if there are more or fewer values than the form says, one is above its bound, or the key is not
        the form's.
    """
    if cipher.key_id != form.key_id:
        raise GateError("An update is to be encrypted under another key than the round's.", RESTART)
    yield form.header
    count, width = 0, form.packing.values_per_ciphertext
    for piece in pieces:
        if piece.shape != (min(width, form.values - count),):
            raise GateError("An update to encrypt has more or fewer values than its round's.", RESTART)
        count += piece.size
        try:
            yield cipher.encrypt(pack(piece, form.packing)).tobytes()
        except EncryptionError as error:
            raise GateError(str(error), RESTART) from error
    if count != form.values:
        raise GateError("An update to encrypt has more or fewer values than its round's.", RESTART)


def decrypted_sum(
    paths: Sequence[Path], digests: Sequence[str], hub_sum: Path, form: CiphertextForm, cipher: SecretKeyCipher
) -> Iterator[Values]:
    """Verify the sites' ciphertext files and the hub's sum of them, then yield the sum's values in pieces.

    The files lie in the order of `digests`, which the caller has taken from signed notices.
    Guarantee: nothing is decrypted before every byte of every file has its digest and form; what is decrypted is the
        sum of exactly these files, added here, and equals the hub's.
    Raises: GateError if a file is not what was signed, or the hub's sum is not theirs.
    """
    if cipher.key_id != form.key_id or len(set(digests)) != len(digests) or len(paths) != len(digests):
        raise GateError("The key or the list of ciphertexts is not the round's.", REMEDY)
    parameters = form.packing.parameters
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in (*paths, hub_sum)]
        for file, digest in zip(files, digests, strict=False):
            _check_digest(file, digest, form)
        summed = files.pop()
        _expect(files, form.header)
        _expect([summed], form.sum_header(digests))
        for start in range(0, form.values, form.packing.values_per_ciphertext):
            records = [records_from(_read(file, record_bytes(parameters)), parameters) for file in files]
            claimed = np.frombuffer(_read(summed, polynomial_bytes(parameters)), np.uint8)[None]
            yield _opened(records, claimed, min(form.packing.values_per_ciphertext, form.values - start), form, cipher)
        if summed.read(1):
            raise GateError("The hub's sum is longer than the sum of the updates.", REMEDY)


def _opened(
    records: list[Records], claimed: Records, count: int, form: CiphertextForm, cipher: SecretKeyCipher
) -> Values:
    try:
        total = cipher.add(records)
        if not np.array_equal(cipher.first_polynomial(total), unpacked(claimed, form.packing.parameters)):
            raise GateError("The hub's sum is not the sum of the signed updates.", REMEDY)
        return unpack(cipher.decrypt(total), form.packing, count)
    except EncryptionError as error:
        raise GateError(str(error), REMEDY) from error


def _check_digest(file: BinaryIO, digest: str, form: CiphertextForm) -> None:
    hasher, count = hashlib.sha256(), 0
    while count <= form.file_bytes and (piece := file.read(READ_BYTES)):
        hasher.update(piece)
        count += len(piece)
    if count != form.file_bytes or hasher.hexdigest() != hex_of(digest):
        raise GateError("An encrypted update is not the one that its site has signed.", REMEDY)
    file.seek(0)


def _expect(files: Sequence[BinaryIO], header: bytes) -> None:
    for file in files:
        if file.read(len(header)) != header:
            raise GateError("A ciphertext file is not of this study and round, its key and parameters.", REMEDY)


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise GateError("A ciphertext file is cut off.", REMEDY)
    return data
