"""BFV through TenSEAL: sums decrypt exactly, keys are the same everywhere, and no ciphertext is like another."""

import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import Records, add, coefficients_of, seeds_of
from protocol.homomorphic.packing import Packing, Values, pack, unpack
from protocol.homomorphic.parameters import PARAMETERS
from protocol.homomorphic.scheme import KeySecret, SecretKeyCipher, key_id_of, require_library

SECRET = KeySecret(bytes(range(64)))
RECORDED_KEY = "sha256:53f516d9debdf42605d8a48c62921775560850eb64ca98813c7f59a3892f8bb2"
EIGHT = Packing(bits=8, weight_sum=8)


@cache
def the_cipher() -> SecretKeyCipher:
    return SecretKeyCipher(SECRET)


@pytest.fixture
def cipher() -> SecretKeyCipher:
    return the_cipher()


def values(seed: int, packing: Packing = EIGHT) -> Values:
    return np.random.default_rng(seed).integers(0, 1 << packing.bits, packing.values_per_ciphertext).astype(np.uint64)


def opened(cipher: SecretKeyCipher, records: list[Records], packing: Packing) -> Values:
    return unpack(cipher.decrypt(cipher.add(records)), packing, packing.values_per_ciphertext)


def test_what_was_encrypted_decrypts(cipher: SecretKeyCipher) -> None:
    np.testing.assert_array_equal(opened(cipher, [cipher.encrypt(pack(values(1), EIGHT))], EIGHT), values(1))


def test_the_decrypted_sum_of_eight_sites_equals_the_plain_sum(cipher: SecretKeyCipher) -> None:
    records = [cipher.encrypt(pack(values(seed), EIGHT)) for seed in range(8)]
    np.testing.assert_array_equal(opened(cipher, records, EIGHT), sum(values(seed) for seed in range(8)))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=10), st.integers(1, 20), st.integers(0, 9))
def test_weighted_sums_are_exact_at_their_extremes(weights: list[int], bits: int, seed: int) -> None:
    cipher = the_cipher()
    packing = Packing(bits, sum(weights))
    generator = np.random.default_rng(seed)
    sites = [
        generator.choice([0, (1 << bits) - 1], packing.values_per_ciphertext).astype(np.uint64) * np.uint64(weight)
        for weight in weights
    ]
    records = [cipher.encrypt(pack(site, packing)) for site in sites]
    np.testing.assert_array_equal(opened(cipher, records, packing), sum(sites))


def test_as_many_as_the_bound_allows_decrypt_exactly(cipher: SecretKeyCipher) -> None:
    many = PARAMETERS.most_summands
    packing = Packing(bits=8, weight_sum=many)
    top = np.full(packing.values_per_ciphertext, 255, np.uint64)
    record = cipher.encrypt(pack(top, packing))
    # The same ciphertext again and again: errors that all point the same way, which is the worst case.
    np.testing.assert_array_equal(opened(cipher, [record] * many, packing), top * np.uint64(many))
    with pytest.raises(EncryptionError, match="1 to 186"):
        cipher.add([record] * (many + 1))


def test_the_hubs_arithmetic_equals_seals_own_addition(cipher: SecretKeyCipher) -> None:
    records = [cipher.encrypt(pack(values(seed), EIGHT)) for seed in range(8)]
    by_hub = add(coefficients_of(record) for record in records)
    np.testing.assert_array_equal(by_hub, cipher.first_polynomial(cipher.add(records)))


def test_the_same_values_never_make_the_same_ciphertext_twice() -> None:
    # Ciphers made anew from one secret: the secret seeds the key and must never seed the encryption.
    slots = pack(values(1), EIGHT)
    records = [SecretKeyCipher(SECRET).encrypt(slots) for _ in range(4)]
    assert len({seeds_of(record).tobytes() for record in records}) == 4
    assert len({record[:, 64:].tobytes() for record in records}) == 4


def test_ciphertexts_are_spread_over_the_whole_ring(cipher: SecretKeyCipher) -> None:
    """A chi-square over 64 bins of 40 ciphertexts of zeros: what travels tells nothing of what it holds."""
    zeros = np.zeros(4096, np.uint64)
    found = np.concatenate([coefficients_of(cipher.encrypt(zeros)) for _ in range(40)])
    for prime, size in enumerate(PARAMETERS.data_primes):
        bins = (found[:, prime].astype(np.float64) * 64 / size).astype(np.int64)
        counts = np.bincount(bins.ravel(), minlength=64)
        expected = bins.size / 64
        assert float(((counts - expected) ** 2 / expected).sum()) < 148  # 63 degrees of freedom: one in 10**8


def test_the_same_secret_makes_the_same_key_at_every_site(cipher: SecretKeyCipher) -> None:
    elsewhere = SecretKeyCipher(KeySecret(bytes(range(64))))
    assert cipher.key_id == elsewhere.key_id == key_id_of(SECRET)
    np.testing.assert_array_equal(opened(elsewhere, [cipher.encrypt(pack(values(5), EIGHT))], EIGHT), values(5))


def test_this_seal_samples_the_key_that_was_recorded() -> None:
    # Another key here means that sites with the recorded version and this one could not read each other.
    assert key_id_of(SECRET) == RECORDED_KEY


def test_another_key_opens_nothing(cipher: SecretKeyCipher) -> None:
    other = SecretKeyCipher(KeySecret.generate())
    assert other.key_id != cipher.key_id
    with pytest.raises(EncryptionError, match="cannot be decrypted exactly"):
        other.decrypt(other.add([cipher.encrypt(pack(values(1), EIGHT))]))


def test_a_changed_seed_is_noticed_when_the_sum_is_opened(cipher: SecretKeyCipher) -> None:
    record = cipher.encrypt(pack(values(1), EIGHT))
    record[0, 0] ^= 1
    with pytest.raises(EncryptionError, match="damaged or foreign"):
        cipher.decrypt(cipher.add([record]))


def test_a_coefficient_out_of_range_never_reaches_seal(cipher: SecretKeyCipher) -> None:
    record = cipher.encrypt(pack(values(1), EIGHT))
    record[0, 64:] = 0xFF
    with pytest.raises(EncryptionError, match="not below its prime"):
        cipher.add([record])


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.integers(0, 1000))
def test_any_coefficients_in_range_under_any_seed_end_in_a_refusal_and_never_in_a_crash(
    seed: bytes, number: int
) -> None:
    cipher = the_cipher()
    record = cipher.encrypt(np.zeros(4096, np.uint64))
    noise = np.frombuffer(np.random.default_rng(number).bytes(record.shape[1]), np.uint8)
    record[0, :64] = np.frombuffer(seed, np.uint8)
    record[0, 64 : 64 + 32768] = noise[64 : 64 + 32768]
    record[:, 64 + 32768 :] = np.bitwise_and(record[:, 64 + 32768 :], np.uint8(0x77))
    with pytest.raises(EncryptionError):
        cipher.decrypt(cipher.add([record]))


def test_slots_beyond_the_plain_modulus_are_refused(cipher: SecretKeyCipher) -> None:
    with pytest.raises(EncryptionError, match="below the plain modulus"):
        cipher.encrypt(np.full(4096, PARAMETERS.plain_modulus, np.uint64))
    with pytest.raises(EncryptionError, match="below the plain modulus"):
        cipher.encrypt(np.zeros(4095, np.uint64))


def test_a_secret_is_64_bytes_and_is_not_shown() -> None:
    with pytest.raises(EncryptionError, match="64 bytes"):
        KeySecret(bytes(63))
    assert "00" not in repr(SECRET)
    assert KeySecret.generate() != KeySecret.generate()


def test_a_site_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_library()
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(EncryptionError, match=r"wardround\[encryption\]"):
        require_library()
