"""A reading room: the held-out patients of one study, as cases under codes, since an administrator opened it.

    SITE/worker/reading/rooms/<study hex>.json         the patients, their images and labels, written as a cohort is
    SITE/worker/reading/rooms/<study hex>.study.json   the study, and who opened the room when

The list stays as it was opened, also after the study has ended. Who opts out later is in it no more: everybody's
identity is asked for at each call.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from protocol.digest import canonical_json, hex_of, parse_json
from protocol.study import StudySpec, parse_study
from site_node.cohort.cohort import Cohort, Patient, build_cohort
from site_node.cohort.identities import Identities
from site_node.durable import finished_files, write_durably
from site_node.errors import CohortError, NoHeldOutPatientsError
from site_node.opt_outs import load_identities
from site_node.reading.codes import case_code, case_key
from site_node.settings import SitePaths, SiteSettings
from site_node.site_secrets import read_noise_key, split_key
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort

MOST_CASES = 300
STUDY_SUFFIX = ".study.json"
HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Room:
    """A study with its cases, by code in order of the codes."""

    study: StudySpec
    opened_by: str
    opened_at: float
    cases: Mapping[str, Patient]

    @property
    def takes_labels(self) -> bool:
        """Tell whether a reader is asked for one of the study's classes: not for contours or measured values."""
        return not self.study.is_judged_by_values and not self.study.is_survival

    def answer(self, patient: Patient) -> list[str]:
        """Return what the hospital's own labels say of a case, in the study's words."""
        names = self.study.label.classes
        if self.study.outcome == "multi-label":
            return [name for name, found in zip(names, patient.findings, strict=False) if found == 1]
        return [names[patient.label]]


def reading_folder(paths: SitePaths) -> Path:
    """Return where what belongs to reading lies: in the worker's own folder."""
    return paths.worker / "reading"


def open_room(settings: SiteSettings, study: StudySpec, person: str, now: float) -> Room:
    """Open a study's reading room; one that is open already stays as it is.

    Raises: CohortError if the study is none on images, or nobody is held out here; what `build_cohort` raises.
    """
    known = room_of(settings, study.digest)
    if known is not None:
        return known
    if study.kind == "tabular":
        raise CohortError("The study is one on tables: there is no picture to read.", "Name a study on images.")
    cohort = _cohort(settings, study)
    key = case_key(_key_path(settings.paths))
    held_out = [patient for patient in cohort.patients if patient.split in HELD_OUT]
    if not held_out:
        raise NoHeldOutPatientsError("No patient is held out of this study here.", "State splits in the labels.")
    held_out.sort(key=lambda patient: case_code(key, study.digest, patient.key))
    folder = _folder(settings.paths)
    freeze_cohort(folder, study.digest, replace(cohort, patients=tuple(held_out[:MOST_CASES]), values=None))
    about = {"study": study.model_dump(mode="json", by_alias=True), "opened_by": person, "opened_at": now}
    write_durably(_study_path(settings.paths, study.digest), canonical_json(about), mode=0o600)  # last: it is the door
    return _room(settings, _study_path(settings.paths, study.digest))


def room_of(settings: SiteSettings, study_digest: str) -> Room | None:
    """Return the open room of a study with the cases that take part today; None if there is none."""
    path = _study_path(settings.paths, study_digest)
    return _room(settings, path) if path.exists() else None


def rooms_of(settings: SiteSettings) -> Iterator[Room]:
    """Yield the open rooms, the newest first."""
    found = [_room(settings, path) for path in finished_files(_folder(settings.paths), STUDY_SUFFIX)]
    yield from sorted(found, key=lambda room: -room.opened_at)


def case_of(settings: SiteSettings, code: str) -> tuple[Room, Patient] | None:
    """Return the case of a code with its room; None if no room has it, or its patient takes part no more."""
    for room in rooms_of(settings):
        if code in room.cases:
            return room, room.cases[code]
    return None


def _cohort(settings: SiteSettings, study: StudySpec) -> Cohort:
    """Return the cohort that the study froze here; after its end, or before, the one that it would find."""
    identities = load_identities(settings)
    try:
        cohort = frozen_cohort(settings.paths.frozen_cohorts, study.digest)
    except CohortError:
        key = split_key(read_noise_key(settings.paths.noise_key))
        places = settings.paths.index, settings.labels
        return build_cohort(*places, study, key, identities=identities, labelling=settings.labelling)
    return replace(cohort, patients=tuple(p for p in cohort.patients if identities.takes_part(p.key)))


def _room(settings: SiteSettings, path: Path) -> Room:
    key = case_key(_key_path(settings.paths))
    study, person, opened_at, cases = _read(path, path.stat().st_mtime_ns, key)
    return Room(study, person, opened_at, _taking_part(cases, load_identities(settings)))


def _taking_part(cases: Mapping[str, Patient], identities: Identities) -> Mapping[str, Patient]:
    return {code: patient for code, patient in cases.items() if identities.takes_part(patient.key)}


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int, key: bytes) -> tuple[StudySpec, str, float, Mapping[str, Patient]]:
    about: dict[str, Any] = parse_json(path.read_bytes())
    study = parse_study(about["study"])
    patients = frozen_cohort(path.parent, study.digest).patients
    cases = {case_code(key, study.digest, patient.key): patient for patient in patients}
    return study, str(about["opened_by"]), float(about["opened_at"]), dict(sorted(cases.items()))


def _folder(paths: SitePaths) -> Path:
    return reading_folder(paths) / "rooms"


def _study_path(paths: SitePaths, study_digest: str) -> Path:
    return _folder(paths) / f"{hex_of(study_digest)}{STUDY_SUFFIX}"


def _key_path(paths: SitePaths) -> Path:
    return reading_folder(paths) / "case.key"
