"""A bundle's files, from a folder or a zip: named, counted and measured before any is read, and never unpacked.

What is refused: names that lead out of the bundle, links, encrypted members, more files or bytes than a model has, and
members that inflate beyond what they say. A zip is read in memory, member by member, up to its stated size.
"""

import hashlib
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from protocol.digest import digest_of
from site_node.errors import BundleError

MOST_FILES = 2000
MOST_BYTES = 2 << 30
MOST_RATIO = 200
"""Inflated to deflated: beyond it a zip is a bomb; weights hardly shrink, and JSON some twentyfold."""
MOST_NAME_CHARACTERS = 240
METADATA = "configs/metadata.json"
BY_PYTHON = "__pycache__"
"""What Python leaves where a bundle was run: no part of the bundle, and never read."""


@dataclass(frozen=True)
class BundleFiles:
    """A bundle's files by their names in it, with their sizes in bytes; read one at a time."""

    sizes: dict[str, int]
    _read: Callable[[str], bytes]

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return a file's bytes.

        Raises: BundleError if it is not there, or larger than it may be.
        """
        if name not in self.sizes:
            raise BundleError(f"The bundle holds no {name}.", "Is it a MONAI Bundle?")
        if self.sizes[name] > most_bytes:
            raise BundleError(
                f"{name} has {self.sizes[name]} bytes; at most {most_bytes} are read.", "It is no file of a model."
            )
        data = self._read(name)
        if len(data) != self.sizes[name]:
            raise BundleError(f"{name} has not the size that it says.", "The bundle is damaged, or made to mislead.")
        return data

    def digest(self) -> str:
        """Return the bundle's digest: of the names and digests of all its files, whatever it is packed in."""
        return digest_of({name: hashlib.sha256(self.read(name, MOST_BYTES)).hexdigest() for name in sorted(self.sizes)})


def open_bundle(path: Path) -> BundleFiles:
    """Open a bundle, a folder or a zip.

    Raises: BundleError if it is neither, or is refused.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise BundleError(f"{path} is neither a folder nor a zip.", "Name a MONAI Bundle.")
    return _of_zip(path)


def _of_folder(root: Path) -> BundleFiles:
    sizes: dict[str, int] = {}
    for path in _below(root):
        name = path.relative_to(root).as_posix()
        sizes[_safe(name)] = path.stat().st_size
        _bounded(sizes)
    return BundleFiles(sizes, lambda name: (root / name).read_bytes())


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleError(f"{path.name[:80]!r} is a link, or no plain file.", "Copy what it points to.")
        if path.is_dir():
            yield from _below(path) if path.name != BY_PYTHON else ()
        else:
            yield path


def _of_zip(path: Path) -> BundleFiles:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        raise BundleError("The zip cannot be read.", "Is it whole?") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _safe(info.filename)
        _plain(info)
        if name in members:
            raise BundleError(f"The zip holds {name[:80]!r} twice.", "Which one is meant?")
        members[name] = info
        _bounded({known: one.file_size for known, one in members.items()})
    prefix = _prefix(members)
    inner = {name.removeprefix(prefix): info for name, info in members.items()}

    def read(name: str) -> bytes:
        info = inner[name]
        try:
            with zipfile.ZipFile(path) as archive, archive.open(info) as member:
                return member.read(info.file_size + 1)
        except Exception:  # what a damaged or foreign archive leads the reader to
            raise BundleError(f"{name} cannot be unpacked.", "The zip is damaged.") from None

    return BundleFiles({name: info.file_size for name, info in inner.items()}, read)


def _safe(name: str) -> str:
    parts = PurePosixPath(name).parts
    foreign = "\\" in name or ":" in name or "\0" in name or name.startswith("/") or not name.isprintable()
    if foreign or ".." in parts or not parts or len(name) > MOST_NAME_CHARACTERS:
        raise BundleError(
            f"The name {name[:80]!r} leads out of the bundle.", "It is made to mislead; do not unpack it."
        )
    return str(PurePosixPath(name))


def _plain(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BundleError(f"{info.filename[:80]!r} is a link, or no plain file.", "Pack what it points to.")
    if info.flag_bits & 0x1:
        raise BundleError(f"{info.filename[:80]!r} is encrypted.", "Ask for the bundle without a password.")
    if info.file_size > MOST_RATIO * max(info.compress_size, 1) and info.file_size > 1 << 20:
        raise BundleError(f"{info.filename[:80]!r} would inflate more than {MOST_RATIO} times.", "It is a zip bomb.")


def _bounded(sizes: dict[str, int]) -> None:
    if len(sizes) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
        raise BundleError(
            f"The bundle has more than {MOST_FILES} files, or {MOST_BYTES} bytes.", "It holds more than a model."
        )


def _prefix(members: dict[str, zipfile.ZipInfo]) -> str:
    if METADATA in members:
        return ""
    roots = {name.split("/", 1)[0] + "/" for name in members}
    root = roots.pop() if len(roots) == 1 else ""
    return root if f"{root}{METADATA}" in members else ""
