"""Versions read for a job: whole, or the task is answered by `base-unavailable`."""

import errno

import numpy as np
import pytest

from protocol.digest import digest_of_bytes, hex_of
from protocol.tensors import encode_weights
from site_node.errors import BaseUnavailableError
from site_node.settings import SitePaths
from site_node.update.versions import read_version
from tests.fakes.gated_site import GatedSite

DATA = encode_weights({"w": np.arange(300, dtype=np.float32)})
DIGEST = digest_of_bytes(DATA)


@pytest.fixture
def paths(tmp_path_factory: pytest.TempPathFactory) -> SitePaths:
    paths = GatedSite.make(tmp_path_factory.mktemp("site")).paths
    (paths.blobs / hex_of(DIGEST)).write_bytes(DATA)
    return paths


def test_a_whole_version_is_read(paths: SitePaths) -> None:
    np.testing.assert_array_equal(read_version(paths, DIGEST)["w"], np.arange(300, dtype=np.float32))


@pytest.mark.parametrize("left", [None, b"", DATA[:-1], bytes(len(DATA))], ids=["missing", "empty", "cut off", "zeros"])
def test_a_version_that_is_missing_or_damaged_is_unavailable(paths: SitePaths, left: bytes | None) -> None:
    path = paths.blobs / hex_of(DIGEST)
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    with pytest.raises(BaseUnavailableError):
        read_version(paths, DIGEST)


def test_a_version_that_the_disk_cannot_read_is_unavailable(paths: SitePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "fromfile", broken)
    with pytest.raises(BaseUnavailableError):
        read_version(paths, DIGEST)
