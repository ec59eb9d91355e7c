"""A cohort's images, or a tabular study's rows, as tensors, grouped by patient, and the patients that a step draws.

Each image is decoded and prepared once for a study and kept on the site's own disk, encrypted (`pixel_cache.py`), under
the digest of the cohort's manifest and of the preprocessing; later tasks decrypt what they draw. Half precision: images
were standardised, and its rounding (2**-11) is below that of the 8-bit originals.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.digest import digest_of, hex_of
from protocol.study import StudySpec
from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, ImageRef
from site_node.cohort.volumes import takes_volumes
from site_node.dicom.pixels import read_pixels
from site_node.errors import CohortError
from site_node.privacy.clipping import PatientBatch
from site_node.privacy.noise import NoiseSource
from site_node.privacy.sampling import draw_images, draw_patients
from site_node.training.objectives.choice import objective_of
from site_node.training.pixel_cache import Make, PixelCache
from site_node.training.prepared_masks import VERSION as MASK_VERSION
from site_node.training.prepared_masks import prepared_masks
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.sealed_images import SealedImages
from site_node.training.stepwise import VERSION as STEP_VERSION
from site_node.training.stepwise import prepared_volume, upright_axes
from site_node.training.transforms import VERSION, Picture, augment, augment_with_masks, preparation
from site_node.training.volume_picture import VERSION as VOLUME_VERSION
from site_node.training.volume_picture import read_volume_picture

Read = Callable[[ImageRef], Picture]


def draw_batch(study: StudySpec, patients: PreparedPatients, noise: NoiseSource, device: torch.device) -> PatientBatch:
    """Draw a step's patients and their images, and vary the images (never a table's rows). The batch may be empty.

    Guarantee: each patient is drawn independently with the study's rate; of a drawn patient at most
        `images_per_patient` images, at random.
    """
    drawn = draw_patients(noise.sampling, patients.patients, study.training.sampling_rate)
    chosen = []
    for patient in drawn:
        own = patients.images_of(int(patient))
        chosen.append(own[draw_images(noise.images, len(own), study.training.images_per_patient)])
    batch, terms = patients.batch(chosen, device), study.preprocessing
    if study.kind == "tabular":
        return batch
    upright = upright_axes(terms)
    if study.kind == "segmentation":
        images, masks = augment_with_masks(
            batch.images, batch.targets, terms.augmentation, noise.augmentation, mirror=terms.mirror, upright=upright
        )
        return PatientBatch(images, masks, batch.counts)
    images = augment(batch.images, terms.augmentation, noise.augmentation, mirror=terms.mirror, upright=upright)
    return PatientBatch(images, batch.targets, batch.counts)


def prepare_cohort(
    study: StudySpec, cohort: Cohort, splits: Sequence[Split], cache: PixelCache | None, *, read: Read | None = None
) -> dict[Split, PreparedPatients]:
    """Return the patients of each split that has any, their images decoded and prepared.

    `read` decodes one image (by default its DICOM file). With a cache folder the pixels are kept there.
    Raises: PixelsError if an image of the cohort cannot be read any more.
    """
    tabular, masked = study.kind == "tabular", study.kind == "segmentation"
    images = _values(cohort) if tabular else _images(study, cohort, cache, read or _reader(study))
    masks = _masks(study, cohort, cache) if masked else None
    prepared: dict[Split, PreparedPatients] = {}
    start = 0
    rows: dict[str, list[int]] = {patient.key: [] for patient in cohort.patients}
    for patient in cohort.patients:
        rows[patient.key] = list(range(start, start + len(patient.images)))
        start += len(patient.images)
    for split in splits:
        patients = cohort.of(split)
        if not patients:
            continue
        numbers = [number for patient in patients for number in rows[patient.key]]
        prepared[split] = PreparedPatients(
            images=images,
            rows=np.array(numbers, np.int64),
            targets=objective_of(study).targets(study, patients),
            first_image=np.cumsum([0, *(len(patient.images) for patient in patients)]),
            labels=np.array([patient.label for patient in patients], np.int64),
            masks=masks,
            left_out=cohort.left_out.get(split, 0),
            findings=tuple(patient.findings for patient in patients),
            told=cohort.told if split == "train" else None,
        )
    return prepared


def _values(cohort: Cohort) -> NDArray[np.float32]:
    if cohort.values is None:
        raise CohortError("The cohort of a tabular study has no rows.", "A new study freezes a new cohort.")
    return cohort.values


def _images(
    study: StudySpec, cohort: Cohort, cache: PixelCache | None, read: Read
) -> NDArray[np.float16] | SealedImages:
    shape = (_number_of_images(cohort), 1, *study.preprocessing.size)
    kept = _kept(cache, study, _named(study, cohort), shape, "float16", lambda: _each_image(study, cohort, read))
    return _prepared_images(study, cohort, read) if kept is None else kept


def _masks(study: StudySpec, cohort: Cohort, cache: PixelCache | None) -> NDArray[np.uint8] | SealedImages:
    shape = (_number_of_images(cohort), *study.preprocessing.size)
    named = [MASK_VERSION, "masks", _named(study, cohort)]
    kept = _kept(cache, study, named, shape, "uint8", lambda: prepared_masks(study, cohort))
    return prepared_masks(study, cohort) if kept is None else kept


def _kept(
    cache: PixelCache | None, study: StudySpec, named: Any, shape: tuple[int, ...], dtype: str, make: Make
) -> SealedImages | None:
    """Return the cache's images of this name, made first where it has none; None if they cannot be kept."""
    if cache is None:
        return None
    return cache.images(hex_of(study.digest), hex_of(digest_of(named)), shape, dtype, make)


def _number_of_images(cohort: Cohort) -> int:
    return sum(len(patient.images) for patient in cohort.patients)


def _named(study: StudySpec, cohort: Cohort) -> list[object]:
    preprocessing = study.preprocessing.model_dump(mode="json", exclude={"augmentation", "mirror", "preset"})
    volumes = [VOLUME_VERSION] if takes_volumes(study) else []
    stepwise = [STEP_VERSION] if study.preprocessing.steps else []
    return [VERSION, cohort.manifest_digest, preprocessing, *volumes, *stepwise]


def _each_image(study: StudySpec, cohort: Cohort, read: Read) -> Iterator[Picture]:
    prepare, terms = preparation(study.preprocessing), study.preprocessing
    for patient in cohort.patients:
        for reference in patient.images:
            if terms.steps and reference.slices:
                yield prepared_volume(terms, reference.slices)
            else:
                yield prepare(read(reference))


def _prepared_images(study: StudySpec, cohort: Cohort, read: Read) -> NDArray[np.float16]:
    result = np.empty((_number_of_images(cohort), 1, *study.preprocessing.size), np.float16)
    for number, image in enumerate(_each_image(study, cohort, read)):
        result[number] = image
    return result


def _reader(study: StudySpec) -> Read:
    edge = max(study.preprocessing.size)

    def read(reference: ImageRef) -> Picture:
        if reference.slices:
            return read_volume_picture(reference.slices, edge)
        return read_pixels(reference.path, reference.frame)

    return read
