"""The outbox's files: a second name of the gate's own copy where the disk allows it, else a second copy."""

import errno
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes
from protocol.keeping import in_one_process
from site_node.durable import kept_as
from site_node.errors import GateError
from site_node.governance import spool
from site_node.settings import SitePaths

PAYLOAD = b"an update" * 1000
DIGEST = digest_of_bytes(PAYLOAD)


@pytest.fixture
def paths(tmp_path: Path) -> SitePaths:
    found = SitePaths(tmp_path)
    for folder in found.folders():
        folder.mkdir(parents=True, exist_ok=True)
    source = tmp_path / "payload.bin"
    source.write_bytes(PAYLOAD)
    spool.keep_payload(found, source, DIGEST, len(PAYLOAD))
    return found


def test_a_payload_is_given_to_the_agent_without_being_written_again(paths: SitePaths) -> None:
    spool.place(paths, 7, b"{}", DIGEST)
    given = spool.numbered(paths.outbox, 7, spool.PAYLOAD_SUFFIX)
    assert given.read_bytes() == PAYLOAD
    assert given.stat().st_ino == spool.kept_payload(paths, DIGEST).stat().st_ino
    assert given.stat().st_mode & 0o777 == 0o640  # the agent reads and cannot change what the gate keeps


def test_what_the_worker_handed_over_is_never_the_file_that_leaves(paths: SitePaths) -> None:
    (paths.root / "payload.bin").write_bytes(b"changed afterwards")
    spool.place(paths, 7, b"{}", DIGEST)
    assert spool.numbered(paths.outbox, 7, spool.PAYLOAD_SUFFIX).read_bytes() == PAYLOAD


def test_where_a_file_can_have_one_name_only_it_is_copied(paths: SitePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    spool.place(paths, 7, b"{}", DIGEST)
    given = spool.numbered(paths.outbox, 7, spool.PAYLOAD_SUFFIX)
    assert given.read_bytes() == PAYLOAD
    assert given.stat().st_ino != spool.kept_payload(paths, DIGEST).stat().st_ino


def test_the_gates_copy_outlives_the_outbox_and_goes_with_the_receipt(paths: SitePaths) -> None:
    spool.place(paths, 7, b"{}", DIGEST)
    given = spool.numbered(paths.outbox, 7, spool.PAYLOAD_SUFFIX)
    given.unlink()
    spool.place(paths, 7, b"{}", DIGEST)
    assert given.read_bytes() == PAYLOAD
    spool.clear(paths, 7, DIGEST, payload_is_needed=False)
    assert not given.exists()
    assert not spool.kept_payload(paths, DIGEST).exists()


def test_what_one_process_digested_itself_is_kept_without_a_copy_and_what_changed_since_is_refused(
    paths: SitePaths,
) -> None:
    source, keeping = paths.root / "update.bin", in_one_process()
    source.write_bytes(PAYLOAD + b".")
    digest = digest_of_bytes(PAYLOAD + b".")
    with kept_as(keeping):
        keeping.note(source, digest)
        assert spool.keep_payload(paths, source, digest, len(PAYLOAD) + 1).samefile(source)
        source.write_bytes(PAYLOAD + b"!")
        with pytest.raises(GateError, match="not of the size and digest"):
            spool.keep_payload(paths, source, digest, len(PAYLOAD) + 1)
