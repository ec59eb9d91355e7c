"""One picture of a case as a reader sees it: de-identified, windowed, eight bits, in a PNG without a word beside it.

The file is de-identified first, by the profile of every copy that leaves the raw store (`dicom/deidentified_file.py`),
with its pixels searched for text whatever its header says; a picture in which text is found is not shown. Then window
and level of the header, or the picture's own range, make greys. For a person's eye only: no network sees this.
"""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from site_node.cohort.cohort import ImageRef
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentified_file import deidentified_file
from site_node.dicom.display_window import Window, displayed, window_of
from site_node.dicom.pixels import grey_frame, opened
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.dicom.volume import stack_of
from site_node.errors import DeidentificationError, PixelsError

MOST_EDGE = 1024  # pixels: what a screen shows, not what a measurement needs
MOST_FILE_BYTES = 512 << 20
WHITE = 255.0
INVERTED = "MONOCHROME1"
Place = tuple[Path, int | None]
"""A file, and a frame of it where it holds several."""


def slices_of(image: ImageRef) -> tuple[Place, ...]:
    """Return an image's pictures in the order in which they lie: file and frame; of a radiograph the only one.

    Raises: SeriesError or UnreadableError if the files of a volume make none any more.
    """
    return _stacked(image.slices) if image.slices else ((image.path, image.frame),)


def case_picture(
    places: Sequence[Place], number: int, patient_id: str, policy: DeidentificationPolicy, pseudonyms: Pseudonyms
) -> bytes:
    """Return one of an image's pictures as PNG; all of a volume have the window of the one in its middle.

    Guarantee: nothing but pixels is in it; neither edge is longer than `MOST_EDGE`.
    Raises: DeidentificationError if no safe copy can be made, also because text is burnt in; PixelsError.
    """
    strict = policy.model_copy(update={"look_at": "everything", "burnt_in_text": "refuse"})
    middle, place = places[len(places) // 2], places[number]
    window = _window(middle, path_state(middle[0]), patient_id, strict, pseudonyms)
    _, values = _shown(place, path_state(place[0]), patient_id, strict, pseudonyms)
    return _png(displayed(values, window))


def path_state(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change, by which a kept copy is known to be of today's file.

    Raises: PixelsError if it is gone or too large.
    """
    try:
        found = path.stat()
    except OSError:
        raise PixelsError("The image file cannot be opened.", "Is its folder mounted? Index again.") from None
    if found.st_size > MOST_FILE_BYTES:
        raise PixelsError("The image file is larger than what is shown here.", "Read it in the hospital's viewer.")
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _window(
    place: Place, state: tuple[int, int], patient_id: str, policy: DeidentificationPolicy, pseudonyms: Pseudonyms
) -> Window:
    dataset, values = _shown(place, state, patient_id, policy, pseudonyms)
    if str(dataset.PhotometricInterpretation) == INVERTED:  # its window is of the values before they were turned over
        for keyword in ("WindowCenter", "WindowWidth"):
            if keyword in dataset:
                delattr(dataset, keyword)
    return window_of(dataset, values, place[1] or 0)


def _shown(
    place: Place, state: tuple[int, int], patient_id: str, policy: DeidentificationPolicy, pseudonyms: Pseudonyms
) -> tuple[Dataset, NDArray[np.float32]]:
    dataset = opened(_copied(place[0], state, patient_id, policy, pseudonyms))
    return dataset, grey_frame(dataset, place[1] or 0)


@lru_cache(maxsize=4)
def _stacked(files: tuple[Path, ...]) -> tuple[Place, ...]:
    return tuple((files[plane.source], plane.frame) for plane in stack_of(files).planes)


@lru_cache(maxsize=2)
def _copied(
    path: Path, _state: tuple[int, int], patient_id: str, policy: DeidentificationPolicy, pseudonyms: Pseudonyms
) -> bytes:
    # the frames of one file are looked through one after the other: it is not de-identified for each anew
    try:
        content = path.read_bytes()
    except OSError:
        raise DeidentificationError("the file cannot be opened") from None
    return deidentified_file(content, policy, pseudonyms, patient_id).content


def _png(grey: NDArray[np.float32]) -> bytes:
    picture = Image.fromarray(np.rint(grey * WHITE).astype(np.uint8), "L")
    if max(picture.size) > MOST_EDGE:
        share = MOST_EDGE / max(picture.size)
        size = [max(1, round(edge * share)) for edge in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    written = BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
