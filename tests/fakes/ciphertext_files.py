"""Sites that have encrypted an update of the same round, as files beside each other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.digest import digest_of, digest_of_file
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic.packing import Packing, Values, cut
from protocol.homomorphic.scheme import KeySecret, SecretKeyCipher
from site_node.governance.encryption import encrypted

SECRET = KeySecret(bytes(range(64)))
FEW_VALUES = 45_000
"""Three ciphertexts at five values a slot, the last part empty."""


@dataclass(frozen=True)
class EncryptedRound:
    """What some sites have encrypted, and what their plain values were."""

    form: CiphertextForm
    cipher: SecretKeyCipher
    plain: list[Values]
    paths: list[Path]

    @property
    def digests(self) -> list[str]:
        return [digest_of_file(path) for path in self.paths]

    @property
    def plain_sum(self) -> Values:
        return np.asarray(np.sum(self.plain, axis=0, dtype=np.uint64))


def encrypted_round(folder: Path, sites: int = 4, values: int = FEW_VALUES, bits: int = 8) -> EncryptedRound:
    """Encrypt random values of so many sites into files of a folder."""
    cipher = SecretKeyCipher(SECRET)
    form = CiphertextForm(digest_of("a study"), 1, cipher.key_id, values, Packing(bits, weight_sum=sites))
    generator = np.random.default_rng(7)
    plain = [generator.integers(0, 1 << bits, values).astype(np.uint64) for _ in range(sites)]
    paths = [folder / f"site-{number}.bfv" for number in range(sites)]
    for path, update in zip(paths, plain, strict=True):
        path.write_bytes(b"".join(encrypted(cut(update, form.packing), form, cipher)))
    return EncryptedRound(form, cipher, plain, paths)
