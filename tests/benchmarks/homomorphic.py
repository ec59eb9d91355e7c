"""What homomorphic encryption of a round costs: sites encrypt, the hub adds, a site verifies, adds again and decrypts.

    python -m tests.benchmarks.homomorphic --sites 8 --params 7000000 --bits 8

Prints JSON: `upload_ratio` (bytes of one site's upload over its float32 bytes), `encrypt_seconds` (one site, median
over the sites), `add_seconds` (the hub, all sites), `decrypt_seconds` (one deciding site: digests, expansion, its own
addition, comparison with the hub's, decryption), `exact` (the decrypted sum equals the plain sum of the same integers,
value by value), `peak_mb` (of this process, libraries included), `download_ratio` (what a deciding site fetches).
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hub.aggregation.ciphertexts import summed
from protocol.digest import digest_of, digest_of_file
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic.packing import Packing, Values, cut
from protocol.homomorphic.scheme import KeySecret, SecretKeyCipher
from site_node.governance.encryption import decrypted_sum, encrypted

FLOAT32_BYTES = 4


def plain_values(site: int, form: CiphertextForm) -> Values:
    """Return a site's integers, the extremes among them, the same each time they are asked for."""
    values = np.random.default_rng(site).integers(0, 1 << form.packing.bits, form.values, np.uint32)
    values[::1009] = (1 << form.packing.bits) - 1
    return values.astype(np.uint64)


def plain_sums(sites: int, form: CiphertextForm) -> Values:
    """Return the sum that decryption must give."""
    total = np.zeros(form.values, np.uint64)
    for site in range(sites):
        total += plain_values(site, form)
    return total


def write(pieces: Iterator[bytes], path: Path) -> float:
    """Write a file from its pieces and return the seconds that making and writing them took."""
    started = time.perf_counter()
    with path.open("wb") as file:
        file.writelines(pieces)
    return time.perf_counter() - started


def is_exact(pieces: Iterator[Values], expected: Values) -> tuple[bool, float]:
    """Compare what is decrypted with the plain sum; the seconds are those of the decryption alone."""
    started, spent, position, exact = time.perf_counter(), 0.0, 0, True
    for piece in pieces:
        spent += time.perf_counter() - started
        exact = exact and bool(np.array_equal(piece, expected[position : position + piece.size]))
        position += piece.size
        started = time.perf_counter()
    return exact and position == expected.size, spent + time.perf_counter() - started


def measure(sites: int, parameters: int, bits: int, folder: Path) -> dict[str, float | bool | int]:
    """Run one round of encryption and return the figures."""
    cipher = SecretKeyCipher(KeySecret.generate())
    form = CiphertextForm(digest_of("benchmark"), 1, cipher.key_id, parameters, Packing(bits, weight_sum=sites))
    paths = [folder / f"site-{site}" for site in range(sites)]
    seconds = []
    for site, path in enumerate(paths):
        values = plain_values(site, form)
        seconds.append(write(encrypted(cut(values, form.packing), form, cipher), path))
        del values
    digests = [digest_of_file(path) for path in paths]
    add_seconds = write(summed(paths, digests, form), folder / "sum")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pieces = decrypted_sum(paths, digests, folder / "sum", form, cipher)
    exact, decrypt_seconds = is_exact(pieces, plain_sums(sites, form))
    float32 = FLOAT32_BYTES * parameters
    downloaded = form.sum_bytes(digests) + sites * form.file_bytes
    return {
        "sites": sites,
        "params": parameters,
        "bits": bits,
        "fields": form.packing.fields,
        "upload_ratio": round(form.file_bytes / float32, 4),
        "download_ratio": round(downloaded / float32, 4),
        "encrypt_seconds": round(statistics.median(seconds), 3),
        "add_seconds": round(add_seconds, 3),
        "decrypt_seconds": round(decrypt_seconds, 3),
        "exact": exact,
        "peak_mb": round(peak, 1),
    }


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--params", type=int, default=7_000_000)
    parser.add_argument("--bits", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.sites, arguments.params, arguments.bits, Path(folder))))  # noqa: T201


if __name__ == "__main__":
    main()
