import base64
import json
import stat
from pathlib import Path

import pytest

from protocol.errors import SignatureError
from protocol.signing import PublicKey, SigningKey, open_envelope, read_unverified, sign, signer_of

KEY = SigningKey.from_seed(bytes(32))


def test_a_signed_message_opens_with_its_key_and_is_the_same_bytes() -> None:
    envelope = sign(b"hello", KEY)
    assert open_envelope(envelope, KEY.public) == read_unverified(envelope) == b"hello"
    assert signer_of(envelope) == KEY.public.key_id


def test_signing_is_deterministic() -> None:
    assert sign(b"m", KEY) == sign(b"m", KEY)


def test_another_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not belong"):
        open_envelope(sign(b"m", SigningKey.generate()), KEY.public)


def test_a_changed_payload_is_refused() -> None:
    document = json.loads(sign(b"pay 1", KEY))
    document["payload"] = base64.b64encode(b"pay 9").decode()
    with pytest.raises(SignatureError):
        open_envelope(json.dumps(document).encode(), KEY.public)


@pytest.mark.parametrize("envelope", [b"", b"{}", b"[]", b"null", b'{"payload":1}', b"\x00" * 10])
def test_what_is_no_envelope_is_refused(envelope: bytes) -> None:
    with pytest.raises(SignatureError):
        open_envelope(envelope, KEY.public)


def test_the_key_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = SigningKey.load_or_create(tmp_path / "keys" / "k")
    assert SigningKey.load_or_create(tmp_path / "keys" / "k").public == key.public
    assert stat.S_IMODE((tmp_path / "keys" / "k").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "é"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        PublicKey.from_text(text)


def test_a_public_key_survives_its_text() -> None:
    assert PublicKey.from_text(KEY.public.text) == KEY.public
