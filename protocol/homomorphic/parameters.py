"""The one set of BFV parameters that this version speaks, and why it is secure, exact and small. Pure.

Source: Brakerski 2012 and Fan, Vercauteren 2012 (BFV); the table is that of the Homomorphic Encryption Security
Standard (Albrecht et al. 2018, HomomorphicEncryption.org, Table 1: ternary secret, classical attacks, 128 bits).
Words: a ciphertext is two polynomials of `degree` coefficients modulo q, the product of `data_primes`; a plaintext is
one polynomial modulo `plain_modulus`, which batching turns into `degree` independent slots. `special_prime` belongs to
the key only; the security bound counts it.

Why it is exact: a fresh secret-key ciphertext is (q/t)m + e with |e| at most 21 (SEAL draws e as a centred binomial of
42 coins) and half a unit of rounding. Sums wrap modulo t without loss, because each wrap is a whole q. So n summands
carry an error of at most 22n, and decryption is right while that is below q/2t - 1. Half of it is asked for: then
SEAL's own measure of what is left, which counts whole bits, shows a sum that is not what it should be before its use.
"""

from dataclasses import dataclass

from protocol.digest import digest_of
from protocol.errors import EncryptionError

CLASSICAL_128_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Ring degree to the most bits that the coefficient modulus, keys included, may have."""
FRESH_ERROR = 22
WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


@dataclass(frozen=True)
class Parameters:
    """A ring, its moduli, and nothing secret."""

    degree: int
    data_primes: tuple[int, ...]
    special_prime: int
    plain_modulus: int

    @property
    def coefficient_bits(self) -> list[int]:
        """Return the bits of all coefficient primes, the special one last, as TenSEAL takes them."""
        return [prime.bit_length() for prime in (*self.data_primes, self.special_prime)]

    @property
    def slot_bits(self) -> int:
        """Return how many bits a slot holds whatever they are: 2**slot_bits is at most the plain modulus."""
        return self.plain_modulus.bit_length() - 1

    @property
    def most_summands(self) -> int:
        """Return how many fresh ciphertexts a sum may have and still decrypt exactly, in the worst case."""
        modulus = 1
        for prime in self.data_primes:
            modulus *= prime
        return max(0, (modulus // (4 * self.plain_modulus) - 2) // FRESH_ERROR)

    @property
    def digest(self) -> str:
        """Return the digest that ciphertext files name."""
        return digest_of(
            {
                "schema": "wardround.bfv-parameters/1",
                "degree": self.degree,
                # As text: canonical JSON has no integers of this size.
                "data_primes": [str(prime) for prime in self.data_primes],
                "special_prime": str(self.special_prime),
                "plain_modulus": str(self.plain_modulus),
            }
        )


PARAMETERS = Parameters(
    degree=4096,
    data_primes=(68719230977, 68719403009),
    special_prime=137438822401,
    plain_modulus=288230376151130113,
)
"""Degree 4096, coefficient bits 36 + 36 + 37 = 109, the largest 58-bit plain modulus that batches."""


def check_parameters(parameters: Parameters) -> None:
    """Refuse parameters that are not 128 bits secure or cannot add exactly.

    Guarantee: the coefficient modulus, key prime included, is within the standard's table; every modulus is a prime of
        the form 1 mod 2 x degree; at least two ciphertexts can be summed in the worst case.
    Raises: EncryptionError naming the first fault.
    """
    limit = CLASSICAL_128_BITS.get(parameters.degree)
    if limit is None:
        raise EncryptionError(f"Degree {parameters.degree} is not in the security standard's table. Choose one of it.")
    total = sum(parameters.coefficient_bits)
    if total > limit:
        raise EncryptionError(
            f"{total} coefficient bits at degree {parameters.degree} are below 128 bits of security: "
            f"the standard allows {limit}."
        )
    moduli = (*parameters.data_primes, parameters.special_prime, parameters.plain_modulus)
    if len(set(moduli)) != len(moduli):
        raise EncryptionError("The moduli must differ from each other.")
    for modulus in moduli:
        if modulus % (2 * parameters.degree) != 1 or not is_prime(modulus):
            raise EncryptionError(f"A modulus must be a prime of the form 1 mod {2 * parameters.degree}.")
    if parameters.most_summands < 2:
        raise EncryptionError("The plain modulus leaves no room for the error of a sum. Take a smaller one.")


def is_prime(number: int) -> bool:
    """Tell whether a number below 2**64 is prime (Miller and Rabin; these witnesses are proven to suffice there)."""
    if number < 2 or any(number % witness == 0 for witness in WITNESSES):
        return number in WITNESSES
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, witness, odd, twos) for witness in WITNESSES)


def _passes(number: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
