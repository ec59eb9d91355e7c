"""The two files that leave under homomorphic encryption: a site's encrypted vector, and a round's decrypted sum.

Both lie in the gate's own folder, named by digest, whole or not at all; nothing is in the outbox before it is recorded
as an output of its round. Memory is a window, however large the model.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic.scheme import SecretKeyCipher
from protocol.homomorphic.vector_form import in_pieces, lowered, raised
from protocol.secure_aggregation.vector import VectorTerms, weight_digits
from site_node.errors import GateError
from site_node.governance import spool
from site_node.governance.encryption import decrypted_sum, encrypted
from site_node.governance.vector_file import integers_of
from site_node.settings import SitePaths

REMEDY = "Nothing left. See the gate's log."


def write_encrypted(
    paths: SitePaths, plain: Path, terms: VectorTerms, weight: int, form: CiphertextForm, cipher: SecretKeyCipher
) -> tuple[str, int]:
    """Encrypt the worker's integers behind the weight's digits; return the ciphertext file's digest and size.

    Raises: GateError if the integers are not of the study's vector.
    """
    words = chain([weight_digits(weight, terms.ring)], integers_of(plain, terms))
    pieces = in_pieces(words, form.packing.values_per_ciphertext)
    return _kept(paths, encrypted(raised(pieces, terms), form, cipher))


def write_decrypted(
    paths: SitePaths,
    ciphertexts: Sequence[Path],
    digests: Sequence[str],
    hub_sum: Path,
    terms: VectorTerms,
    form: CiphertextForm,
    cipher: SecretKeyCipher,
) -> tuple[str, int]:
    """Verify, add and decrypt a round's ciphertexts; return digest and size of the words of the sum.

    Guarantee: every site that opens the same files writes the same bytes.
    Raises: GateError if a file is not what its site has signed, or the hub's sum is not theirs.
    """
    sums = decrypted_sum(ciphertexts, digests, hub_sum, form, cipher)
    return _kept(paths, (words.tobytes() for words in lowered(sums, terms, len(digests))))


def _kept(paths: SitePaths, pieces: Iterable[bytes]) -> tuple[str, int]:
    try:
        return spool.keep_stream(paths, pieces)
    except EncryptionError as error:
        raise GateError(str(error), REMEDY) from error
