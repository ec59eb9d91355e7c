from pathlib import Path

import pytest

from protocol.digest import canonical_json, digest_of, digest_of_bytes, digest_of_file, hex_of, parse_json
from protocol.errors import DigestError


def test_canonical_json_orders_keys_and_writes_numbers_as_rfc_8785_does() -> None:
    assert canonical_json({"b": 1.0, "a": [1e21, 0.000001, "é"]}) == '{"a":[1e+21,0.000001,"é"],"b":1}'.encode()


def test_the_digest_of_nothing_is_the_published_one() -> None:
    assert digest_of_bytes(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"{}")
    assert digest_of_file(tmp_path / "f") == digest_of({}) == digest_of_bytes(b"{}")


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b"NaN", b"{", b"\xff", b"[" * 100_000])
def test_ambiguous_or_broken_json_is_refused(text: bytes) -> None:
    with pytest.raises(DigestError):
        parse_json(text)


@pytest.mark.parametrize("value", [float("nan"), 2**60, {1: 2}, object()])
def test_data_without_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(DigestError):
        canonical_json(value)


@pytest.mark.parametrize("text", ["sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "A" * 64])
def test_only_a_digest_becomes_a_file_name(text: str) -> None:
    with pytest.raises(DigestError):
        hex_of(text)
