"""Every image of a cohort is read whole once: the digest of its bytes, and whether its pixels decode.

Headers promise more than files keep. What does not decode falls out before training and is not met in the middle of it,
and the digests put the images' content into the cohort's manifest, on which the noise stream is keyed: other pixels
under the same names draw other noise. The index remembers the outcome until the file changes.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from protocol.digest import digest_of_bytes
from site_node.cohort.index_database import Content, IndexDatabase, IndexedImage
from site_node.dicom.parallel import for_each_file
from site_node.dicom.pixels import check_pixels
from site_node.errors import PixelsError

BATCH_FILES = 200
VANISHED = "image: the file is gone or changed since the index was made; index again"
UNDECODABLE = "image: its pixels cannot be decoded"


def read_content(path: Path) -> Content | None:
    """Digest a file and try to decode its frames; None if it cannot be opened."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        check_pixels(data)
    except PixelsError as error:
        return Content(digest_of_bytes(data), error.message)
    return Content(digest_of_bytes(data), None)


def is_unchanged(image: IndexedImage) -> bool:
    """Tell whether the file still lies there as the index knows it."""
    try:
        status = image.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (image.size, image.mtime_ns)


def contents_of(database: IndexDatabase, images: Sequence[IndexedImage]) -> dict[Path, Content]:
    """Return the content of each image whose file is as indexed, reading only what was not read before.

    A file that is gone or changed has no entry.
    """
    present = [image for image in images if is_unchanged(image)]
    contents = {image.path: image.content for image in present if image.content is not None}
    unread = [image for image in present if image.content is None]
    outcomes = zip(unread, for_each_file(read_content, [image.path for image in unread]), strict=True)
    while batch := list(islice(outcomes, BATCH_FILES)):
        read = [(image, content) for image, content in batch if content is not None]
        database.remember(read)
        contents |= {image.path: content for image, content in read}
    return contents
