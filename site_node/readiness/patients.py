"""Whom a study would find here: matched, labelled, readable, conflicts and orphans, by split and by class.

Small counts are hidden, and so much beside them that no hidden one follows from a sum that is shown, nor the few whom a
count leaves of a whole; the others are in tens.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.study import StudySpec
from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, ImageRef, Patient, build_cohort
from site_node.cohort.fallen_out import NOT_TRAINING, fallen_out
from site_node.cohort.masks import mask_values
from site_node.cohort.table_cohort import build_table_cohort
from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.errors import CohortError, IndexingError, TooFewPatientsError
from site_node.opt_outs import load_identities
from site_node.rounded_counts import in_tens
from site_node.settings import SiteSettings
from site_node.site_secrets import read_noise_key, split_key

MOST_MASKS = 200
"""Looked into, evenly spread over the cohort; all of them were read to the voxel already."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ANSWER = "Mend what fell out, or refuse the study."


@dataclass(frozen=True)
class Found:
    """The cohort, None where there is none, and what is to be said of it."""

    cohort: Cohort | None
    findings: tuple[Finding, ...]
    figures: Mapping[str, Any]


def find_patients(settings: SiteSettings, study: StudySpec, least: int) -> Found:
    """Build the study's cohort here, freeze nothing, and say what it is and what fell out.

    Patients whose lifetime budget is spent are still in it: the gate, which knows the ledger, leaves them out when it
    has the study counted.
    """
    try:
        cohort = _cohort_of(settings, study)
    except TooFewPatientsError as error:
        return Found(None, (problem("patients", error.message, error.remedy),), {})
    except (CohortError, IndexingError) as error:
        return Found(None, (problem("labels", error.message, error.remedy),), {})
    findings = [*_fallen(cohort, least), *_training(cohort, study), *_held_out(cohort)]
    figures = {**figures_of(cohort, study, least), "masks": drawn_in(cohort, study, least)}
    return Found(cohort, tuple(findings), figures)


def figures_of(cohort: Cohort, study: StudySpec, least: int) -> dict[str, Any]:
    """Return patients and classes by split, in tens, None for a number that is hidden. Pure."""
    of_split: dict[str, int] = {split: len(cohort.of(split)) for split in SPLITS}
    patients = shown(of_split, least)
    images = sum(len(patient.images) for patient in cohort.patients)
    return {
        "hidden_below": least,
        "patients": in_tens(sum(of_split.values()), least),
        "images": in_tens(images, least),
        "by_split": {split: patients[split] for split in SPLITS},
        "classes": {
            split: shown(classes_of(study, cohort.of(split)), least, of_split[split])
            for split in SPLITS
            if patients[split]
        },
    }


def classes_of(study: StudySpec, patients: tuple[Patient, ...]) -> dict[str, int]:
    """Return how many patients have each class, or each finding; nothing where a study has none. Pure."""
    if study.is_judged_by_values:
        return {}
    if study.outcome == "multi-label":
        present: Counter[int] = Counter(n for p in patients for n, found in enumerate(p.findings) if found == 1)
    else:
        present = Counter(patient.label for patient in patients)
    return {name: present[number] for number, name in enumerate(study.label.classes)}


def shown(counts: Mapping[str, int], least: int, total: int | None = None) -> dict[str, int | None]:
    """Return the counts in tens, None for those hidden. Pure.

    Hidden is each below `least`, more until the hidden ones' sum is not, and each that leaves fewer than `least` of the
    `total`: so many lack what is counted, or are not known to have it.

    >>> shown({"train": 47, "validation": 12, "test": 3}, 10)
    {'train': 40, 'validation': None, 'test': None}
    >>> shown({"edema": 195, "mass": 60}, 10, total=200)
    {'edema': None, 'mass': 60}
    """
    result = {name: in_tens(count, least) for name, count in counts.items()}
    hidden = 0
    for name, count in sorted(counts.items(), key=lambda one: one[1]):
        if result[name] is not None and not 0 < hidden < least:
            break
        result[name], hidden = None, hidden + count
    if total is not None:
        result |= {name: None for name, count in counts.items() if total - count < least}
    return result


def drawn_in(cohort: Cohort, study: StudySpec, least: int) -> dict[str, Any]:
    """Return how many of some masks hold each class, in tens; None where hidden, nothing without masks."""
    images = [image for patient in cohort.patients for image in patient.images if image.mask is not None]
    if not images:
        return {}
    some = images[:: max(1, len(images) // MOST_MASKS)]
    held = Counter[int]()
    for image in some:
        held.update({int(number) for number in np.unique(_mask_values(image, cohort))})
    return {
        "of": in_tens(len(some), least),
        "out_of": in_tens(len(images), least),
        **shown({name: held[number] for number, name in enumerate(study.label.classes) if number}, least, len(some)),
    }


def _mask_values(image: ImageRef, cohort: Cohort) -> NDArray[np.uint8]:
    if image.mask is None:
        return np.zeros(0, np.uint8)
    return mask_values(image.mask, image.path, image.frame, image.slices, cohort.mask_names)


def lines_of(figures: Mapping[str, Any]) -> Iterator[str]:
    """Return the figures as lines for a terminal."""

    def say(count: int | None) -> str:
        return "hidden" if count is None else str(count)

    yield f"matched: {say(figures['patients'])} patients with {say(figures['images'])} images or rows"
    for split, count in figures["by_split"].items():
        classes = figures["classes"].get(split) or {}
        parts = "; ".join(f"{name}: {say(held)}" for name, held in classes.items())
        number = "patients hidden" if count is None else f"{count} patients"
        yield f"  {split}: {number}{f' ({parts})' if parts else ''}"
    drawn = dict(figures.get("masks") or {})
    if drawn:
        of, out_of = say(drawn.pop("of")), say(drawn.pop("out_of"))
        held_in = "; ".join(f"{name}: {say(number)}" for name, number in drawn.items())
        yield f"  of {of} masks that were looked into (there are {out_of}), so many hold: {held_in}"
    yield f"  in tens; hidden: fewer than {figures['hidden_below']}, or what would tell such a number"


def _cohort_of(settings: SiteSettings, study: StudySpec) -> Cohort:
    identities, key = load_identities(settings), split_key(read_noise_key(settings.paths.noise_key))
    if study.kind == "tabular":
        return build_table_cohort(settings.table, study, key, identities=identities)
    places = settings.paths.index, settings.labels
    return build_cohort(*places, study, key, identities=identities, labelling=settings.labelling)


def _fallen(cohort: Cohort, least: int) -> Iterator[Finding]:
    for found in fallen_out(cohort.dropped, least, cohort.remedies):
        if found.is_fault:
            yield warning(found.concern, f"{found.says}.", found.remedy)
        else:
            yield fine(found.concern, f"{found.says}.")


def _training(cohort: Cohort, study: StudySpec) -> Iterator[Finding]:
    for reason, remedy in NOT_TRAINING.items():
        if cohort.dropped.get(reason):
            yield problem("training", f"{_capital(reason.removeprefix('patient: '))}.", remedy)
            return
    if not cohort.of("train"):
        yield problem("training", "No patient is left to train on; the site could evaluate only.", ANSWER)
    else:
        yield fine("training", f"This site has the patients to train the study {study.name}.")


def _held_out(cohort: Cohort) -> Iterator[Finding]:
    if cohort.of("validation") or cohort.of("test"):
        yield fine("held-out", "Patients are held out, on whom versions are judged.")
    else:
        remedy = "State splits in the labels, or accept that this site judges no version."
        yield warning("held-out", "No patient is held out.", remedy)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
