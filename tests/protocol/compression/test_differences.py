"""The difference between two versions as a file: the same later version wherever it is added, or a refusal."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compression.coding import decoded, encoded
from protocol.compression.differences import Description, difference_bytes, later_version
from protocol.errors import CodecError, ProtocolError, TensorError
from protocol.manifest import manifest_of
from protocol.tensors import Weights, decode_weights, encode_weights, flatten

STUDY = "sha256:" + "e5" * 32
LISTS = [["quantise:8", "zstandard"], ["half:bfloat16"], ["top-k:0.2", "quantise:4", "zstandard"], ["random-k:0.5"]]


def model(seed: int, scale: float = 1.0) -> Weights:
    chance = np.random.default_rng(seed)
    return {
        "a": (scale * chance.normal(size=(300, 5))).astype(np.float32),
        "b": (scale * chance.normal(size=70_000)).astype(np.float32),
    }


MANIFEST = manifest_of(model(0))


def description(steps: list[str], number: int = 3) -> Description:
    return Description(steps=steps, study_digest=STUDY, number=number)


def written(folder: Path, steps: list[str], base: Weights, target: Weights) -> tuple[Path, Path]:
    difference = flatten(target, MANIFEST) - flatten(base, MANIFEST)
    paths = folder / "base", folder / "difference"
    paths[0].write_bytes(encode_weights(base))
    paths[1].write_bytes(b"".join(difference_bytes([difference], description(steps), MANIFEST)))
    return paths


@pytest.mark.parametrize("steps", LISTS, ids="+".join)
def test_the_later_version_is_the_earlier_one_plus_what_the_steps_leave(tmp_path: Path, steps: list[str]) -> None:
    base, target = model(1), model(2, 1e-3)
    paths = written(tmp_path, steps, base, target)
    found = flatten(decode_weights(b"".join(later_version(*paths))), MANIFEST)
    terms = description(steps).terms(MANIFEST)
    difference = flatten(target, MANIFEST) - flatten(base, MANIFEST)
    assert np.array_equal(found, flatten(base, MANIFEST) + decoded(b"".join(encoded([difference], terms)), terms))


def test_eight_bits_take_a_quarter_and_come_close(tmp_path: Path) -> None:
    base = model(1)
    target = {name: array + np.float32(0.01) * model(2)[name] for name, array in base.items()}
    paths = written(tmp_path, ["quantise:8", "zstandard"], base, target)
    found = decode_weights(b"".join(later_version(*paths)))
    assert paths[1].stat().st_size < 0.26 * paths[0].stat().st_size
    assert max(float(np.abs(found[name] - target[name]).max()) for name in found) < 0.01 * 5 / 127


@given(st.sampled_from(LISTS), st.integers(0, 1 << 30), st.integers(1, 255))
def test_one_damaged_byte_is_refused_or_gives_another_finite_version(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], place: int, change: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    base, difference = written(folder, steps, model(1), model(2))
    whole = b"".join(later_version(base, difference))
    data = bytearray(difference.read_bytes())
    data[place % min(len(data), 4000)] ^= change
    difference.write_bytes(data)
    try:
        found = b"".join(later_version(base, difference))
    except ProtocolError:
        return
    assert len(found) == len(whole)
    assert np.isfinite(flatten(decode_weights(found), MANIFEST)).all()


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff{}", b"\x02\0\0\0{}", b"\x02\0\0\0{x"])
def test_a_file_that_is_no_difference_is_refused(tmp_path: Path, data: bytes) -> None:
    base, difference = written(tmp_path, ["half"], model(1), model(2))
    difference.write_bytes(data)
    with pytest.raises(CodecError):
        list(later_version(base, difference))


def test_a_difference_that_is_cut_off_or_of_another_model_is_refused(tmp_path: Path) -> None:
    base, difference = written(tmp_path, ["quantise:8", "zstandard"], model(1), model(2))
    whole = difference.read_bytes()
    difference.write_bytes(whole[:-9])
    with pytest.raises(CodecError):
        list(later_version(base, difference))
    difference.write_bytes(whole)
    base.write_bytes(encode_weights({"a": model(1)["a"]}))
    with pytest.raises(CodecError):
        list(later_version(base, difference))
    base.write_bytes(b"no weights")
    with pytest.raises(TensorError):
        list(later_version(base, difference))


def test_a_difference_that_leads_beyond_float32_is_refused(tmp_path: Path) -> None:
    large = {name: np.full_like(array, 3e38) for name, array in model(1).items()}
    base, difference = written(tmp_path, ["half:bfloat16"], {n: np.zeros_like(a) for n, a in large.items()}, large)
    base.write_bytes(encode_weights(large))
    with pytest.raises(CodecError, match="not finite"):
        list(later_version(base, difference))
