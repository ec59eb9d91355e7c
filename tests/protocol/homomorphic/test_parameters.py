"""128 bits by the standard's table, exact sums by the bound on errors."""

from dataclasses import replace

import pytest

from protocol.errors import EncryptionError
from protocol.homomorphic.parameters import CLASSICAL_128_BITS, PARAMETERS, check_parameters, is_prime

LARGEST_109 = (68719230977, 68719403009)


def test_the_parameters_are_128_bits_secure_by_the_standards_table() -> None:
    assert CLASSICAL_128_BITS == {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
    assert PARAMETERS.coefficient_bits == [36, 36, 37]
    assert sum(PARAMETERS.coefficient_bits) <= CLASSICAL_128_BITS[PARAMETERS.degree]
    check_parameters(PARAMETERS)


def test_one_bit_more_than_the_table_is_refused() -> None:
    wider = 274877562881  # a 38-bit prime, 1 mod 8192
    assert is_prime(wider)
    assert wider % 8192 == 1
    with pytest.raises(EncryptionError, match="110 coefficient bits at degree 4096 are below 128 bits"):
        check_parameters(replace(PARAMETERS, special_prime=wider))


def test_the_same_moduli_in_a_smaller_or_unknown_ring_are_refused() -> None:
    with pytest.raises(EncryptionError, match="below 128 bits"):
        check_parameters(replace(PARAMETERS, degree=2048))
    with pytest.raises(EncryptionError, match="not in the security standard's table"):
        check_parameters(replace(PARAMETERS, degree=4095))


def test_a_plain_modulus_that_does_not_batch_is_refused() -> None:
    with pytest.raises(EncryptionError, match="1 mod 8192"):
        check_parameters(replace(PARAMETERS, plain_modulus=(1 << 57) + 1))
    with pytest.raises(EncryptionError, match="differ"):
        check_parameters(replace(PARAMETERS, data_primes=(68719230977, 68719230977)))


def test_a_plain_modulus_without_room_for_the_error_is_refused() -> None:
    only_one = replace(PARAMETERS, data_primes=(68719230977,))
    with pytest.raises(EncryptionError, match="no room"):
        check_parameters(only_one)


def test_a_sum_of_186_fresh_ciphertexts_is_exact_in_the_worst_case() -> None:
    modulus = LARGEST_109[0] * LARGEST_109[1]
    summands = PARAMETERS.most_summands
    assert summands == 186
    assert 22 * summands < modulus / (4 * PARAMETERS.plain_modulus) - 1


def test_primes_are_told_from_what_only_looks_like_one() -> None:
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]
    carmichael, strong_to_small_bases, mersenne = 561, 3215031751, (1 << 61) - 1
    assert not is_prime(carmichael)
    assert not is_prime(strong_to_small_bases)
    assert is_prime(mersenne)


def test_the_digest_names_every_modulus() -> None:
    digests = {
        PARAMETERS.digest,
        replace(PARAMETERS, degree=8192).digest,
        replace(PARAMETERS, special_prime=5).digest,
        replace(PARAMETERS, plain_modulus=5).digest,
        replace(PARAMETERS, data_primes=(5,)).digest,
    }
    assert len(digests) == 5
