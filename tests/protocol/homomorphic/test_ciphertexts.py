"""The ciphertext container: 36 bits a coefficient, one header, and nothing in it that says how large a thing is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digest import digest_of
from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import (
    CiphertextForm,
    add,
    coefficients_of,
    packed,
    polynomial_bytes,
    record_bytes,
    records_from,
    seeds_of,
    unpacked,
)
from protocol.homomorphic.packing import Packing
from protocol.homomorphic.parameters import PARAMETERS

FORM = CiphertextForm(digest_of("study"), 3, digest_of("key"), values=50_000, packing=Packing(8, 8))
PRIMES = np.array(PARAMETERS.data_primes, np.uint64)[None, :, None]


def random_coefficients(seed: int, count: int = 2) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint64]]:
    values = np.random.default_rng(seed).integers(0, 1 << 62, (count, 2, 4096)).astype(np.uint64) % PRIMES
    values[:, :, 0], values[:, :, 1] = 0, PRIMES[:, :, 0] - 1
    return values


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_coefficients_come_back_from_their_bytes(seed: int, count: int) -> None:
    coefficients = random_coefficients(seed, count)
    data = packed(coefficients)
    assert data.shape == (count, polynomial_bytes()) == (count, 36864)
    np.testing.assert_array_equal(unpacked(data), coefficients)


def test_coefficients_lie_where_the_format_says() -> None:
    coefficients = np.zeros((1, 2, 4096), np.uint64)
    coefficients[0, 0, 0], coefficients[0, 0, 1] = 0x9_0403_0201, 0xA_0807_0605
    data = packed(coefficients)[0]
    assert data[:8].tobytes() == bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert data[32768] == 0xA9
    assert not data[8:32768].any()


def test_a_record_is_a_seed_and_a_polynomial() -> None:
    assert record_bytes() == 64 + 36864
    data = bytes(range(64)) + packed(random_coefficients(1, 1)).tobytes()
    records = records_from(data * 3)
    assert records.shape == (3, record_bytes())
    assert seeds_of(records)[2].tobytes() == bytes(range(64))
    np.testing.assert_array_equal(coefficients_of(records)[1], random_coefficients(1, 1)[0])


@pytest.mark.parametrize("size", [1, record_bytes() - 1, record_bytes() + 1])
def test_bytes_that_are_not_whole_records_are_refused(size: int) -> None:
    with pytest.raises(EncryptionError, match="records of 36928 bytes"):
        records_from(bytes(size))


@pytest.mark.parametrize("prime", [0, 1])
def test_a_coefficient_that_is_not_below_its_prime_is_refused(prime: int) -> None:
    coefficients = random_coefficients(2)
    coefficients[1, prime, 77] = PARAMETERS.data_primes[prime]
    with pytest.raises(EncryptionError, match="not below its prime"):
        unpacked(packed(coefficients))


def test_a_polynomial_of_another_length_is_refused() -> None:
    with pytest.raises(EncryptionError, match="another number of coefficients"):
        unpacked(packed(random_coefficients(3))[:, :-1])


def test_the_sum_is_modulo_each_prime() -> None:
    polynomials = [random_coefficients(seed) for seed in range(8)]
    expected = sum(p.astype(object) for p in polynomials) % PRIMES.astype(object)
    np.testing.assert_array_equal(add(polynomials), expected.astype(np.uint64))


def test_adding_leaves_the_summands_as_they_were() -> None:
    first = random_coefficients(1)
    kept = first.copy()
    add([first, random_coefficients(2)])
    np.testing.assert_array_equal(first, kept)


def test_no_ciphertext_and_more_than_decrypt_exactly_are_refused() -> None:
    one = np.ones((1, 2, 4096), np.uint64)
    with pytest.raises(EncryptionError, match="0 came"):
        add([])
    assert int(add([one] * 186)[0, 0, 0]) == 186
    with pytest.raises(EncryptionError, match="187 came"):
        add([one] * 187)


def test_the_header_differs_for_whatever_a_ciphertext_must_not_be_mixed_with() -> None:
    forms = [
        FORM,
        replace(FORM, study_digest=digest_of("another")),
        replace(FORM, round=4),
        replace(FORM, key_id=digest_of("another")),
        replace(FORM, values=50_001),
        replace(FORM, packing=Packing(7, 8)),
        replace(FORM, packing=Packing(8, 7)),
        replace(FORM, packing=Packing(8, 8, replace(PARAMETERS, degree=8192))),
    ]
    assert len({form.header for form in forms}) == len(forms)
    assert FORM.sum_header([digest_of("a")]) not in {form.header for form in forms}
    assert FORM.sum_header([digest_of("a")]) != FORM.sum_header([digest_of("b")])


def test_sizes_are_known_before_a_byte_has_come() -> None:
    assert FORM.ciphertexts == 3
    assert FORM.file_bytes == len(FORM.header) + 3 * 36928
    digests = [digest_of("a"), digest_of("b")]
    assert FORM.sum_bytes(digests) == len(FORM.sum_header(digests)) + 3 * 36864


def test_an_update_of_eight_sites_at_eight_bits_is_smaller_than_half_of_float32() -> None:
    form = replace(FORM, values=7_000_000)
    assert form.file_bytes / (4 * 7_000_000) < 0.5
