"""Prepared images at rest: unreadable without the key, whole or not used, bounded, and gone with their study."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from site_node.errors import CacheError
from site_node.settings import SitePaths, load_settings
from site_node.tasks.ended_studies import erase_ended
from site_node.training.pixel_cache import PixelCache, pixel_cache
from site_node.training.sealed_images import SealedImages, seal_images, sealed_bytes

STUDY, OTHER = "a" * 64, "b" * 64
KEY = bytes(range(32))
PICTURES = np.arange(5 * 64, dtype=np.float16).reshape(5, 1, 8, 8)


class Making:
    """Makes the pictures and counts how often."""

    def __init__(self, pictures: NDArray[Any] = PICTURES) -> None:
        self.pictures, self.made = pictures, 0

    def __call__(self) -> Iterator[NDArray[Any]]:
        self.made += 1
        yield from self.pictures


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    return PixelCache(tmp_path / "cache", tmp_path / "keys" / "cache.key")


def kept(cache: PixelCache, make: Making, study: str = STUDY, name: str = "1") -> SealedImages | None:
    return cache.images(study, name, make.pictures.shape, "float16", make)


def test_images_are_read_by_number_in_any_order(tmp_path: Path) -> None:
    seal_images(tmp_path / "file", KEY, PICTURES.shape, "float16", PICTURES)
    sealed = SealedImages(tmp_path / "file", KEY)
    for numbers in (np.array([3, 0, 3]), np.array([], np.int64), [4], slice(1, 3)):
        np.testing.assert_array_equal(sealed[numbers], PICTURES[numbers])
    np.testing.assert_array_equal(np.asarray(sealed), PICTURES)
    assert (len(sealed), sealed.shape, sealed.dtype) == (5, (5, 1, 8, 8), np.float16)
    with pytest.raises(IndexError):
        sealed[np.array([5])]


def test_no_pixel_is_on_the_disk_and_equal_images_look_different(tmp_path: Path) -> None:
    black = np.full((3, 1, 8, 8), 7, np.float16)
    for name in ("one", "two"):
        seal_images(tmp_path / name, KEY, black.shape, "float16", black)
    one, two = ((tmp_path / name).read_bytes() for name in ("one", "two"))
    blocks = {one[start : start + 16] for start in range(0, len(one) - 15)}
    assert len(blocks) == len(one) - 15  # 16 equal bytes appear nowhere twice
    assert black[0].tobytes()[:16] not in one
    assert one[-300:] != two[-300:]
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [60, 90, -1, -150])
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int) -> None:
    seal_images(tmp_path / "file", KEY, PICTURES.shape, "float16", PICTURES)
    data = bytearray((tmp_path / "file").read_bytes())
    data[place] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CacheError):
        SealedImages(tmp_path / "file", KEY)[:]


def test_images_cannot_change_places(tmp_path: Path) -> None:
    seal_images(tmp_path / "file", KEY, PICTURES.shape, "float16", PICTURES)
    data = (tmp_path / "file").read_bytes()
    stride = sealed_bytes((1, 1, 8, 8), "float16")
    (tmp_path / "file").write_bytes(data[: -2 * stride] + data[-stride:] + data[-2 * stride : -stride])
    sealed = SealedImages(tmp_path / "file", KEY)
    np.testing.assert_array_equal(sealed[[0, 1, 2]], PICTURES[:3])
    with pytest.raises(CacheError, match="changed on the disk"):
        sealed[[4]]
    assert not (tmp_path / "file").exists()  # a next attempt makes it again


def test_they_are_made_once_and_a_lost_key_costs_making_them_again(cache: PixelCache) -> None:
    make = Making()
    assert kept(cache, make) is not None
    assert kept(cache, make) is not None
    assert make.made == 1
    assert stat.S_IMODE(cache.key_file.stat().st_mode) == 0o600
    for damage in (
        cache.key_file.unlink,
        lambda: cache.key_file.write_bytes(b"short"),
        lambda: cache.key_file.write_bytes(KEY),
    ):
        damage()
        again = kept(cache, make)
        assert again is not None
        np.testing.assert_array_equal(again[:], PICTURES)
    assert make.made == 4


@pytest.mark.parametrize("content", [b"", b"WRSEAL1\n", b"nothing of ours" * 20])
def test_what_is_no_sealed_file_or_cut_off_is_made_again(cache: PixelCache, content: bytes) -> None:
    make = Making()
    kept(cache, make)
    (path,) = cache.folder.iterdir()
    path.write_bytes(content)
    kept(cache, make)
    path.write_bytes(path.read_bytes()[:-1])
    kept(cache, make)
    assert make.made == 3
    kept(cache, Making(PICTURES[:3]))  # of a patient less: another shape under the same name
    found = SealedImages(path, cache.key_file.read_bytes())
    assert found.shape == (3, 1, 8, 8)


def test_the_oldest_go_when_the_bound_is_reached_and_a_reader_keeps_its_own(tmp_path: Path) -> None:
    size = sealed_bytes(PICTURES.shape, "float16") + 200
    cache = PixelCache(tmp_path / "cache", tmp_path / "key", most_bytes=2 * size)
    first = kept(cache, Making(), name="1")
    kept(cache, Making(), name="2")
    for age, name in enumerate(("2", "1")):
        os.utime(cache.folder / f"{STUDY}.{name}.sealed", (age, age))
    kept(cache, Making(), name="2")  # used: now the other is the oldest
    kept(cache, Making(), name="3")
    assert sorted(path.name.split(".")[1] for path in cache.folder.iterdir()) == ["2", "3"]
    assert first is not None
    np.testing.assert_array_equal(first[:], PICTURES)
    make = Making()
    assert kept(PixelCache(tmp_path / "cache", tmp_path / "key", most_bytes=100), make, name="4") is None
    assert make.made == 0


def test_a_crash_while_writing_leaves_nothing(cache: PixelCache) -> None:
    def interrupted() -> Iterator[NDArray[Any]]:
        yield PICTURES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.images(STUDY, "1", PICTURES.shape, "float16", interrupted)
    assert list(cache.folder.iterdir()) == []


def test_unencrypted_files_of_earlier_releases_are_deleted(cache: PixelCache) -> None:
    cache.folder.mkdir()
    np.save(cache.folder / "old.npy", PICTURES)
    kept(cache, Making())
    assert not (cache.folder / "old.npy").exists()


def test_they_go_with_their_study(tmp_path: Path) -> None:
    paths = SitePaths(tmp_path)
    cache = PixelCache(paths.cache, paths.cache_key)
    for study in (STUDY, OTHER):
        kept(cache, Making(), study)
    paths.orders.mkdir(parents=True)
    (paths.orders / f"{STUDY}.ended").touch()
    assert erase_ended(paths) == 1
    assert [path.name[:64] for path in paths.cache.iterdir()] == [OTHER]
    assert erase_ended(paths) == 0


@pytest.mark.parametrize(
    ("lines", "key", "most"),
    [("", "worker/cache.key", None), ("cache_gb: 0.5\ncache_key: secrets/k\n", "secrets/k", 500_000_000)],
)
def test_site_yaml_says_where_the_key_lies_and_how_much_is_kept(
    tmp_path: Path, lines: str, key: str, most: int | None
) -> None:
    (tmp_path / "site.yaml").write_text(f"name: anna\nhub: https://hub.example.org\nimages: [dicom]\n{lines}")
    found = pixel_cache(load_settings(tmp_path))
    assert found == PixelCache(tmp_path / "worker" / "cache", tmp_path / key, most)
