"""A cohort's images, or a tabular study's rows, as tensors, grouped by patient, and the patients that a step draws.

Each image is decoded and prepared once for a cohort and kept on the site's own disk under the digest of the cohort's
manifest and of the preprocessing; later tasks map the file into memory. Half precision: images were standardised, and
its rounding (2**-11) is below that of the 8-bit originals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.digest import digest_of, hex_of
from protocol.study import StudySpec
from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.cohort.volumes import takes_volumes
from site_node.dicom.pixels import read_pixels
from site_node.durable import unfinished_beside
from site_node.errors import CohortError
from site_node.privacy.clipping import PatientBatch
from site_node.privacy.noise import NoiseSource
from site_node.privacy.sampling import draw_images, draw_patients
from site_node.training.survival import survival_target
from site_node.training.transforms import VERSION, Picture, augment, preparation
from site_node.training.volume_picture import VERSION as VOLUME_VERSION
from site_node.training.volume_picture import read_volume_picture

Read = Callable[[ImageRef], Picture]


@dataclass(frozen=True)
class PreparedPatients:
    """Patients of one split. Never leaves the worker.

    Shapes: images (row, 1, *size) float16, of the whole cohort, usually mapped from disk, or of a tabular study its
        rows (row, feature) float32; rows (image,) which of them are this split's, those of one patient side by side;
        targets (image,) float32, the images' own labels, or in survival the patient's signed time; first_image
        (patient + 1,) where each patient's images begin; labels (patient,) the patients' own.
        `left_out` is how many more of the split match the study and are kept out by their spent budget.
    """

    images: NDArray[np.float16] | NDArray[np.float32]
    rows: NDArray[np.int64]
    targets: NDArray[np.float32]
    first_image: NDArray[np.int64]
    labels: NDArray[np.int64]
    left_out: int = 0

    @property
    def patients(self) -> int:
        """Return the number of patients."""
        return len(self.labels)

    @property
    def public_figure(self) -> int:
        """Return the number that the site tells: what it trains with is divided and weighted by this one."""
        return self.patients + self.left_out

    def images_of(self, patient: int) -> NDArray[np.int64]:
        """Return the numbers of a patient's images."""
        return np.arange(self.first_image[patient], self.first_image[patient + 1])

    def pixels_of(self, numbers: NDArray[np.int64]) -> Tensor:
        """Return images by their numbers.

        Shapes: numbers (image,); result (image, 1, *size) or (image, feature) float32.
        """
        return torch.from_numpy(self.images[self.rows[numbers]].astype(np.float32))

    def batch(self, images: Sequence[NDArray[np.int64]], device: torch.device) -> PatientBatch:
        """Collect the chosen images of some patients, one array of image numbers for each patient."""
        numbers = np.concatenate([np.empty(0, np.int64), *images])
        return PatientBatch(
            self.pixels_of(numbers).to(device),
            torch.from_numpy(self.targets[numbers]).to(device),
            torch.tensor([len(chosen) for chosen in images], dtype=torch.int64, device=device),
        )


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
    batch = patients.batch(chosen, device)
    if study.kind == "tabular":
        return batch
    return PatientBatch(
        augment(batch.images, study.preprocessing.augmentation, noise.augmentation), batch.targets, batch.counts
    )


def prepare_cohort(
    study: StudySpec, cohort: Cohort, splits: Sequence[Split], cache: Path | None, *, read: Read | None = None
) -> dict[Split, PreparedPatients]:
    """Return the patients of each split that has any, their images decoded and prepared.

    `read` decodes one image (by default its DICOM file). With a cache folder the pixels are kept there.
    Raises: PixelsError if an image of the cohort cannot be read any more.
    """
    images = (
        _values(cohort) if study.kind == "tabular" else _cached_images(study, cohort, cache, read or _reader(study))
    )
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
        targets = [_target(patient, image) for patient in patients for image in patient.images]
        prepared[split] = PreparedPatients(
            images=images,
            rows=np.array(numbers, np.int64),
            targets=np.array(targets, np.float32),
            first_image=np.cumsum([0, *(len(patient.images) for patient in patients)]),
            labels=np.array([patient.label for patient in patients], np.int64),
            left_out=cohort.left_out.get(split, 0),
        )
    return prepared


def _target(patient: Patient, image: ImageRef) -> float:
    if patient.time is not None:
        return survival_target(patient.time, event=patient.label == 1)
    return patient.label if image.label is None else image.label


def _values(cohort: Cohort) -> NDArray[np.float32]:
    if cohort.values is None:
        raise CohortError("The cohort of a tabular study has no rows.", "A new study freezes a new cohort.")
    return cohort.values


def _cached_images(study: StudySpec, cohort: Cohort, cache: Path | None, read: Read) -> NDArray[np.float16]:
    if cache is None:
        return _prepared_images(study, cohort, read)
    preprocessing = study.preprocessing.model_dump(mode="json", exclude={"augmentation"})
    volumes = [VOLUME_VERSION] if takes_volumes(study) else []
    key = digest_of([VERSION, cohort.manifest_digest, preprocessing, *volumes])
    path = cache / f"{hex_of(key)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = unfinished_beside(path)
        with unfinished.open("xb") as file:
            np.save(file, _prepared_images(study, cohort, read), allow_pickle=False)
        unfinished.replace(path)
    mapped: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _prepared_images(study: StudySpec, cohort: Cohort, read: Read) -> NDArray[np.float16]:
    prepare = preparation(study.preprocessing)
    references = [image for patient in cohort.patients for image in patient.images]
    result = np.empty((len(references), 1, *study.preprocessing.size), np.float16)
    for number, reference in enumerate(references):
        result[number] = prepare(read(reference))
    return result


def _reader(study: StudySpec) -> Read:
    edge = max(study.preprocessing.size)

    def read(reference: ImageRef) -> Picture:
        if reference.slices:
            return read_volume_picture(reference.slices, edge)
        return read_pixels(reference.path, reference.frame)

    return read
