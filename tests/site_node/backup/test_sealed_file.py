"""A sealed file gives back what was written, to the one who holds its secret, or nothing at all."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from site_node.backup.sealed_file import PIECE_BYTES, TAG_BYTES, SealedReader, SealedWriter, Secret
from site_node.errors import BackupError

KEY = Secret("file", b"k" * 32)
CHEAP = 2  # scrypt's cost in these tests


def sealed(data: bytes, secret: Secret = KEY, step: int = 1 << 16) -> bytes:
    file = BytesIO()
    writer = SealedWriter(file, secret, CHEAP)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
    writer.finish()
    return file.getvalue()


def opened(data: bytes, secret: Secret = KEY, step: int = 100_003) -> bytes:
    reader, parts = SealedReader(BytesIO(data), secret), []
    while part := reader.read(step):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_what_was_written_is_read_whatever_its_length(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    assert opened(sealed(data[:size])) == data[:size]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 700), st.integers(1, 700))
def test_the_steps_of_writing_and_reading_do_not_matter(data: bytes, written: int, read: int) -> None:
    assert opened(sealed(data, step=written), step=read) == data


def test_a_passphrase_opens_what_it_closed_and_nothing_else_does() -> None:
    secret = Secret.from_passphrase("correct horse battery staple")
    data = sealed(b"patient ids", secret)
    assert opened(data, secret) == b"patient ids"
    with pytest.raises(BackupError, match="another than"):
        opened(data, Secret.from_passphrase("correct horse battery stable"))
    with pytest.raises(BackupError, match="locked in another way"):
        opened(data, KEY)


def test_the_same_content_never_looks_the_same() -> None:
    assert sealed(b"x" * 100)[-116:] != sealed(b"x" * 100)[-116:]
    assert b"patient" not in sealed(b"patient" * 100)


THREE = sealed(bytes(2 * PIECE_BYTES + 500))
HEAD = THREE.index(b"}") + 1
PIECE = PIECE_BYTES + TAG_BYTES
DAMAGES = {
    "a bit of the head": THREE[:20] + bytes([THREE[20] ^ 1]) + THREE[21:],
    "a bit of the first piece": THREE[: HEAD + 9] + bytes([THREE[HEAD + 9] ^ 1]) + THREE[HEAD + 10 :],
    "a bit of the last piece": THREE[:-1] + bytes([THREE[-1] ^ 1]),
    "the last piece gone": THREE[: HEAD + 2 * PIECE],
    "cut within a piece": THREE[:-7],
    "something behind the end": THREE + b"x",
    "two pieces exchanged": THREE[:HEAD]
    + THREE[HEAD + PIECE : HEAD + 2 * PIECE]
    + THREE[HEAD : HEAD + PIECE]
    + THREE[HEAD + 2 * PIECE :],
    "a piece twice": THREE[: HEAD + PIECE] + THREE[HEAD:],
    "a piece of another file": THREE[: HEAD + PIECE] + sealed(bytes(2 * PIECE_BYTES + 500))[HEAD + PIECE :],
    "nothing but the head": THREE[:HEAD],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_is_noticed(damage: str) -> None:
    with pytest.raises(BackupError):
        opened(DAMAGES[damage])


@pytest.mark.parametrize(
    "data", [b"", b"WRBACKUP", b"WRBACKUP\xff\xff\xff\xff", b"PK\x03\x04 a zip", b"WRBACKUP\0\0\0\2{}"]
)
def test_what_is_no_sealed_file_is_told(data: bytes) -> None:
    with pytest.raises(BackupError):
        opened(data)


def test_a_head_that_asks_for_too_much_memory_is_refused() -> None:
    data = sealed(b"x", Secret.from_passphrase("correct horse battery staple"))
    greedy = data.replace(b'"cost":2,', b'"cost":9999999999,')
    greedy = greedy[:8] + (int.from_bytes(greedy[8:12], "big") + 9).to_bytes(4, "big") + greedy[12:]
    with pytest.raises(BackupError, match="damaged"):
        opened(greedy, Secret.from_passphrase("correct horse battery staple"))


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    piece, path = bytes(PIECE_BYTES), tmp_path / "large"
    tracemalloc.start()
    with path.open("wb") as file:
        writer = SealedWriter(file, KEY)
        for _ in range(64):
            writer.write(piece)
        writer.finish()
    with path.open("rb") as file:
        reader = SealedReader(file, KEY)
        read = sum(len(part) for part in iter(lambda: reader.read(PIECE_BYTES), b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == 64 * PIECE_BYTES
    assert peak < 8 * PIECE_BYTES


def test_a_secret_is_long_enough_and_not_printed(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="fewer than 12"):
        Secret.from_passphrase("short")
    (tmp_path / "key").write_bytes(b"0" * 31)
    with pytest.raises(BackupError, match="32 bytes"):
        Secret.from_file(tmp_path / "key")
    with pytest.raises(BackupError, match="cannot be read"):
        Secret.from_file(tmp_path / "nowhere")
    assert "horse" not in repr(Secret.from_passphrase("correct horse battery"))
