"""Which images an export is of: all that are indexed, some imaging studies, or the cohort of one research study."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.study import StudySpec
from site_node.cohort.cohort import ImageRef, build_cohort
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.index_database import IndexedImage, open_index
from site_node.errors import CohortError, IndexingError
from site_node.opt_outs import load_identities
from site_node.settings import SiteSettings
from site_node.site_secrets import read_noise_key, split_key


@dataclass(frozen=True)
class Chosen:
    """One file to export; `patient_id` is None where its own header knows best. It never leaves the hospital."""

    path: Path
    patient_id: str | None = None
    label: str = ""
    split: str = ""


def indexed_images(
    index: Path, imaging_studies: Iterable[str] = (), identities: Identities = AS_THEY_ARE
) -> list[Chosen]:
    """Return the indexed images, all or those of the named imaging studies, one file for each instance.

    Each is under its patient's one id; none is of who has opted out.
    Raises: IndexingError if nothing is indexed; CohortError if a named imaging study is not there.
    """
    if not index.exists():
        raise IndexingError("The images of this site are not indexed yet.", "Run: wardround site index")
    wanted = frozenset(imaging_studies)
    with open_index(index, identities) as database:
        images = [i for i in database.images() if not wanted or i.header.study_instance_uid in wanted]
    missing = wanted - {image.header.study_instance_uid for image in images}
    if missing:
        raise CohortError(
            f"{len(missing)} of the {len(wanted)} named imaging studies have no image in the index.",
            "Compare their UIDs with the images; index again.",
        )
    return [Chosen(image.path, image.header.patient_id) for image in _one_for_each_instance(images)]


def _written(study: StudySpec, image: ImageRef) -> str:
    if not image.findings:
        return "" if image.label is None else str(image.label)
    known = zip(study.label.classes, image.findings, strict=True)
    return "|".join(f"{name}={'' if finding is None else finding}" for name, finding in known)


def cohort_images(settings: SiteSettings, study: StudySpec) -> list[Chosen]:
    """Return the images of a research study's cohort, with their labels and splits.

    Raises: CohortError if the study is one on tables; what `build_cohort` raises.
    """
    if study.kind == "tabular":
        raise CohortError("The study is one on tables: it has no images.", "Name a study on images.")
    key = split_key(read_noise_key(settings.paths.noise_key))
    identities = load_identities(settings)
    cohort = build_cohort(
        settings.paths.index, settings.labels, study, key, identities=identities, labelling=settings.labelling
    )
    return [
        Chosen(path, patient.key, _written(study, image), patient.split)
        for patient in cohort.patients
        for image in patient.images
        for path in image.slices or (image.path,)
    ]


def _one_for_each_instance(images: Iterable[IndexedImage]) -> Iterator[IndexedImage]:
    seen: set[str] = set()
    for image in images:
        if image.header.sop_instance_uid not in seen:
            seen.add(image.header.sop_instance_uid)
            yield image
