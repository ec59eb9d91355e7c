"""The blob store: a name is a promise about bytes."""

import os
from pathlib import Path

import pytest

from hub.errors import BlobError, NotFoundError
from hub.registry.blobs import BlobStore
from protocol.digest import digest_of_bytes
from protocol.errors import DigestError
from protocol.keeping import LEFT_BEHIND_SECONDS


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def leftovers(blobs: BlobStore) -> list[Path]:
    return list((blobs.root / "incoming").glob("*"))


def test_bytes_are_found_again_under_their_digest(blobs: BlobStore) -> None:
    digest = blobs.put(b"weights")
    assert digest == digest_of_bytes(b"weights")
    assert blobs.contains(digest)
    assert blobs.size(digest) == 7
    assert blobs.read(digest) == b"weights"
    assert blobs.path(digest).parent.name == digest.removeprefix("sha256:")[:2]


def test_storing_the_same_bytes_again_changes_nothing(blobs: BlobStore) -> None:
    assert blobs.put(b"a") == blobs.put(b"a")


def test_a_range_is_those_bytes(blobs: BlobStore) -> None:
    digest = blobs.put(bytes(range(100)))
    assert b"".join(blobs.read_range(digest, 10, 20)) == bytes(range(10, 20))
    assert b"".join(blobs.read_range(digest, 90, 1000)) == bytes(range(90, 100))


def test_other_bytes_than_expected_are_not_kept(blobs: BlobStore) -> None:
    expected = digest_of_bytes(b"right")
    with pytest.raises(BlobError, match="announced"):
        blobs.put_stream([b"wr", b"ong"], expected)
    assert not blobs.contains(expected)
    assert leftovers(blobs) == []


def test_a_stream_that_breaks_leaves_nothing(blobs: BlobStore) -> None:
    def broken() -> object:
        yield b"some"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        blobs.put_stream(broken())  # type: ignore[arg-type]
    assert leftovers(blobs) == []


def test_a_finished_file_is_moved_in_only_if_it_is_what_was_announced(blobs: BlobStore, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"right")
    with pytest.raises(BlobError):
        blobs.adopt(upload, digest_of_bytes(b"wrong"))
    assert upload.exists()
    digest = blobs.adopt(upload, digest_of_bytes(b"right"))
    assert not upload.exists()
    assert blobs.read(digest) == b"right"


def test_a_blob_that_the_disk_changed_is_not_given_out_whole(blobs: BlobStore) -> None:
    digest = blobs.put(b"right")
    blobs.path(digest).write_bytes(b"wrong")
    with pytest.raises(BlobError):
        blobs.read(digest)


def test_a_missing_blob_is_said_to_be_missing(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError):
        blobs.size(digest_of_bytes(b"nothing"))


def test_only_a_digest_can_become_a_path(blobs: BlobStore) -> None:
    with pytest.raises(DigestError):
        blobs.path("sha256:../../etc/passwd")


def test_several_blobs_that_grow_together_are_those_that_grow_alone(blobs: BlobStore) -> None:
    digests = blobs.put_side_by_side([[b"a", b"x"], [b"b", b""], [b"c", b"z"]], 2)
    assert digests == [digest_of_bytes(b"abc"), digest_of_bytes(b"xz")]
    assert [blobs.read(digest) for digest in digests] == [b"abc", b"xz"]


def test_of_blobs_that_grow_together_none_is_stored_unless_all_rows_came(blobs: BlobStore) -> None:
    with pytest.raises(ValueError, match="zip"):
        blobs.put_side_by_side([[b"a", b"x"], [b"b"]], 2)
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []


def test_a_file_that_was_digested_as_it_came_is_kept_without_a_second_copy(blobs: BlobStore, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"right")
    digest = digest_of_bytes(b"right")
    blobs.keep(upload, digest)
    assert blobs.read(digest) == b"right"
    assert upload.stat().st_ino == blobs.path(digest).stat().st_ino
    upload.unlink()
    assert blobs.read(digest) == b"right"


def test_the_same_file_kept_twice_leaves_nothing_behind(blobs: BlobStore, tmp_path: Path) -> None:
    upload, digest = tmp_path / "upload", digest_of_bytes(b"right")
    upload.write_bytes(b"right")
    blobs.keep(upload, digest)
    blobs.keep(upload, digest)  # the API was killed between this and its commit
    assert leftovers(blobs) == []
    assert blobs.read(digest) == b"right"


def test_what_a_killed_process_left_is_removed_after_a_day(blobs: BlobStore) -> None:
    digest = blobs.put(b"stays")
    left = blobs.root / "incoming" / "0123"
    left.write_bytes(b"half a model")
    now = left.stat().st_ctime
    assert blobs.remove_left_behind(now + LEFT_BEHIND_SECONDS - 60) == 0
    assert leftovers(blobs) == [left]
    assert blobs.remove_left_behind(now + LEFT_BEHIND_SECONDS + 60) == 1
    assert leftovers(blobs) == []
    assert blobs.read(digest) == b"stays"


def test_an_old_file_that_is_just_being_kept_is_not_left_behind(blobs: BlobStore, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"came two days ago")
    os.utime(upload, (0, 0))
    (blobs.root / "incoming").mkdir(parents=True)
    linked = blobs.root / "incoming" / "4567"
    linked.hardlink_to(upload)
    assert blobs.remove_left_behind(linked.stat().st_ctime + 60) == 0
    assert linked.exists()


def test_a_store_without_blobs_has_nothing_left_behind(blobs: BlobStore) -> None:
    assert blobs.remove_left_behind(0.0) == 0


def test_a_blob_that_rests_is_there_as_before(blobs: BlobStore) -> None:
    digest = blobs.put(b"an update")
    blobs.will_rest(digest)
    assert blobs.read(digest) == b"an update"


def test_letting_a_blob_rest_that_is_gone_harms_nothing(blobs: BlobStore) -> None:
    blobs.will_rest(digest_of_bytes(b"never stored"))


def test_pieces_are_taken_in_their_order_while_the_next_ones_are_made(blobs: BlobStore) -> None:
    pieces = [bytes([number]) * (1 + 7919 * number) for number in range(40)]
    assert blobs.read(blobs.put_stream(iter(pieces))) == b"".join(pieces)
