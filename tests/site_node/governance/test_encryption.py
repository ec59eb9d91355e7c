"""The gate encrypts an update, and decrypts only what it has verified and added itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hub.aggregation.ciphertexts import summed
from protocol.digest import digest_of_file
from protocol.homomorphic.ciphertexts import packed, record_bytes, unpacked
from protocol.homomorphic.packing import Packing, cut
from protocol.homomorphic.parameters import PARAMETERS
from protocol.homomorphic.scheme import KeySecret, SecretKeyCipher
from site_node.errors import GateError
from site_node.governance.encryption import decrypted_sum, encrypted
from tests.fakes.ciphertext_files import EncryptedRound, encrypted_round

PACKING = Packing(bits=8, weight_sum=4)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> EncryptedRound:
    return encrypted_round(tmp_path_factory.mktemp("four"))


@pytest.fixture
def hub_sum(four: EncryptedRound, tmp_path: Path) -> Path:
    path = tmp_path / "sum"
    path.write_bytes(b"".join(summed(four.paths, four.digests, four.form)))
    return path


def opened(
    four: EncryptedRound, hub_sum: Path, paths: list[Path] | None = None, digests: list[str] | None = None
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    pieces = decrypted_sum(paths or four.paths, digests or four.digests, hub_sum, four.form, four.cipher)
    return np.concatenate(list(pieces))


def test_the_decrypted_sum_equals_the_plain_quantised_sum(four: EncryptedRound, hub_sum: Path) -> None:
    np.testing.assert_array_equal(opened(four, hub_sum), four.plain_sum)


def test_the_file_has_the_size_that_the_form_says(four: EncryptedRound) -> None:
    assert four.paths[0].stat().st_size == four.form.file_bytes


def test_two_files_of_the_same_update_share_no_record(four: EncryptedRound) -> None:
    size, header = record_bytes(), len(four.form.header)
    one, two = (b"".join(encrypted(cut(four.plain[0], PACKING), four.form, four.cipher))[header:] for _ in range(2))
    records = {data[start : start + size] for data in (one, two) for start in range(0, len(data), size)}
    assert len(records) == 2 * four.form.ciphertexts


@pytest.mark.parametrize("change", [-1, 1, -4040, 20480])
def test_an_update_with_more_or_fewer_values_is_not_encrypted(four: EncryptedRound, change: int) -> None:
    values = np.resize(four.plain[0], four.form.values + change)
    with pytest.raises(GateError, match="more or fewer values"):
        list(encrypted(cut(values, PACKING), four.form, four.cipher))


def test_nothing_is_encrypted_under_another_key(four: EncryptedRound) -> None:
    with pytest.raises(GateError, match="another key"):
        next(encrypted(cut(four.plain[0], PACKING), four.form, SecretKeyCipher(KeySecret.generate())))


def test_a_value_above_its_bound_stops_the_encryption(four: EncryptedRound) -> None:
    high = four.plain[0].copy()
    high[-1] = four.form.packing.largest_sum + 1
    with pytest.raises(GateError, match="above its bound"):
        list(encrypted(cut(high, PACKING), four.form, four.cipher))


def test_a_ciphertext_that_is_not_the_signed_one_opens_nothing(
    four: EncryptedRound, hub_sum: Path, tmp_path: Path
) -> None:
    data = bytearray(four.paths[2].read_bytes())
    data[-1] ^= 1
    forged = tmp_path / "forged"
    forged.write_bytes(data)
    pieces = decrypted_sum([*four.paths[:2], forged, four.paths[3]], four.digests, hub_sum, four.form, four.cipher)
    with pytest.raises(GateError, match="not the one that its site has signed"):
        next(pieces)


@pytest.mark.parametrize("cut", [1, 36928])
def test_a_signed_file_of_another_size_opens_nothing(
    four: EncryptedRound, hub_sum: Path, tmp_path: Path, cut: int
) -> None:
    short = tmp_path / "short"
    short.write_bytes(four.paths[0].read_bytes()[:-cut])
    paths = [short, *four.paths[1:]]
    with pytest.raises(GateError, match="not the one that its site has signed"):
        opened(four, hub_sum, paths, [digest_of_file(path) for path in paths])


def test_a_signed_file_of_another_round_opens_nothing(four: EncryptedRound, hub_sum: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"".join(encrypted(cut(four.plain[0], PACKING), replace(four.form, round=9), four.cipher)))
    paths = [old, *four.paths[1:]]
    with pytest.raises(GateError, match="not of this study and round"):
        opened(four, hub_sum, paths, [digest_of_file(path) for path in paths])


def test_the_hubs_sum_of_fewer_sites_opens_nothing(four: EncryptedRound, tmp_path: Path) -> None:
    """The attack that rules the design: the sum of all but one, and of all, would give one site's update away."""
    fewer = tmp_path / "fewer"
    fewer.write_bytes(b"".join(summed(four.paths[:3], four.digests[:3], four.form)))
    with pytest.raises(GateError, match="not of this study and round"):
        opened(four, fewer)
    lying = tmp_path / "lying"
    body = fewer.read_bytes()[len(four.form.sum_header(four.digests[:3])) :]
    lying.write_bytes(four.form.sum_header(four.digests) + body)
    with pytest.raises(GateError, match="not the sum of the signed updates"):
        opened(four, lying)


def test_one_site_counted_twice_opens_nothing(four: EncryptedRound, hub_sum: Path) -> None:
    twice = [four.paths[0], four.paths[0], *four.paths[2:]]
    with pytest.raises(GateError, match="not the round's"):
        opened(four, hub_sum, twice, [digest_of_file(path) for path in twice])


@pytest.mark.parametrize("fault", ["cut off", "longer", "another coefficient"])
def test_a_damaged_sum_opens_nothing(four: EncryptedRound, hub_sum: Path, fault: str) -> None:
    data = hub_sum.read_bytes()
    if fault == "cut off":
        hub_sum.write_bytes(data[:-1])
    elif fault == "longer":
        hub_sum.write_bytes(data + b"\0")
    else:
        last = np.frombuffer(data[-36864:], np.uint8)[None]
        coefficients = unpacked(last)
        coefficients[0, 1, 5] = (int(coefficients[0, 1, 5]) + 1) % PARAMETERS.data_primes[1]
        hub_sum.write_bytes(data[:-36864] + packed(coefficients).tobytes())
    with pytest.raises(GateError, match=r"cut off|longer than|not the sum"):
        opened(four, hub_sum)


def test_another_key_opens_nothing(four: EncryptedRound, hub_sum: Path) -> None:
    other = replace(four, cipher=SecretKeyCipher(KeySecret.generate()))
    with pytest.raises(GateError, match="key"):
        opened(other, hub_sum)
