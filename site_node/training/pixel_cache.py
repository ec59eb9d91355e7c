"""The worker's folder of prepared images: sealed, bounded, named by the study they were prepared for.

Who loses the key loses nothing but the time to prepare the images again; who takes the disk without the key has none
of them. The key is made where site.yaml says (`cache_key`), which may be a disk that forgets (tmpfs).
"""

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from site_node.errors import CacheError
from site_node.settings import SiteSettings
from site_node.training.sealed_images import KEY_BYTES, SealedImages, seal_images, sealed_bytes

SUFFIX = ".sealed"
KEY_MODE = 0o600
PLAIN = "*.npy"
"""What releases before this one left, unencrypted."""

Make = Callable[[], Iterable[NDArray[Any]]]


@dataclass(frozen=True)
class PixelCache:
    """Where prepared images are kept. `most_bytes`: what all of them may take; older ones go first."""

    folder: Path
    key_file: Path
    most_bytes: int | None = None

    def images(self, study: str, name: str, shape: Sequence[int], dtype: str, make: Make) -> SealedImages | None:
        """Return a study's images of this name, made and sealed first where they are not there.

        `study` and `name` are hexadecimal. Shapes: (image, ...).
        Guarantee: nothing is ever on the disk unencrypted. None if they are larger than all that the cache may hold.
        """
        self._forget_plain()
        path = self.folder / f"{study}.{name}{SUFFIX}"
        found = self._existing(path, shape, dtype)
        if found is not None:
            return found
        needed = sealed_bytes(shape, dtype)
        if self.most_bytes is not None and needed > self.most_bytes:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(needed)
        key = self.key()
        seal_images(path, key, shape, dtype, make())
        return SealedImages(path, key)

    def _existing(self, path: Path, shape: Sequence[int], dtype: str) -> SealedImages | None:
        try:
            found = SealedImages(path, self.key())
            os.utime(path)  # the one that was used last goes last
        except (FileNotFoundError, CacheError, ValueError, KeyError):
            return None
        return found if found.shape == tuple(shape) and found.dtype == dtype else None

    def _make_room(self, needed: int) -> None:
        if self.most_bytes is None:
            return
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=_last_used)
        taken = sum(_size(path) for path in files)
        for path in files:
            if taken + needed <= self.most_bytes:
                return
            taken -= _size(path)
            path.unlink(missing_ok=True)  # who reads it at this moment keeps it until done

    def key(self) -> bytes:
        """Return the key; a missing or damaged one is replaced, and what it sealed is made again."""
        with suppress(FileNotFoundError):
            key = self.key_file.read_bytes()
            if len(key) == KEY_BYTES:
                return key
            self.key_file.unlink(missing_ok=True)
        self.key_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.key_file.with_name(f".{self.key_file.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_MODE), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            self.key_file.hardlink_to(unfinished)  # of two processes that make one, the first's is it
        except FileExistsError:
            pass
        except OSError:  # a disk without links
            unfinished.replace(self.key_file)
        unfinished.unlink(missing_ok=True)
        return self.key_file.read_bytes()

    def _forget_plain(self) -> None:
        for path in self.folder.glob(PLAIN):
            path.unlink(missing_ok=True)


def pixel_cache(settings: SiteSettings) -> PixelCache:
    """Return the cache of a site's worker."""
    most = None if settings.cache_gb is None else int(settings.cache_gb * 1e9)
    return PixelCache(settings.paths.cache, settings.cache_key or settings.paths.cache_key, most)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
