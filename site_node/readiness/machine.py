"""What may be told of this machine and its settings for a study: the worker's part of the readiness report.

No image, label or index is opened; of a table the first line. The disk and the memory are judged as a whole, because
what is free follows from the images that lie there and from what else runs; a round is timed on stand-ins.
"""

import math
import shutil
import statistics

import torch

from protocol.readiness import (
    DecodersState,
    LabelsState,
    Minutes,
    NamesState,
    Sufficient,
    expected_patients,
    rounded_up,
)
from protocol.study import StudySpec
from site_node.cohort.csv_file import columns_in
from site_node.cohort.label_columns import columns_of
from site_node.doctor import decoders
from site_node.doctor.memory import GROUP, MEMINFO
from site_node.errors import LabelsError
from site_node.label_settings import LabelSettings
from site_node.labels.naming import folded
from site_node.machine_figures import MachineFigures
from site_node.readiness.pace import SECONDS_A_MINUTE, peak_bytes, timed_steps
from site_node.readiness.room import stored_bytes
from site_node.readiness.stand_ins import stand_ins
from site_node.settings import SiteSettings
from site_node.training.device import chosen_device
from site_node.training.job import usable_cores
from site_node.training.networks import initial_weights, threads_worth


def machine_figures(settings: SiteSettings, study: StudySpec, number: int) -> MachineFigures:
    """Look at the machine and the settings, and time some steps of the study in this process.

    Guarantee: nothing in it depends on a patient of this hospital, or on how many there are.
    Raises: SiteError if the network is not known; NotFiniteError if training diverges at once.
    """
    values = sum(array.size for array in initial_weights(study).values())
    patients = expected_patients(study)
    told = MachineFigures.model_validate(
        {
            "study_digest": study.digest,
            "number": number,
            "labels": labels_state(settings, study),
            "class_names": names_state(settings.labelling, study),
            "decoders": _decoders(settings),
            "device": "gpu" if chosen_device().type != "cpu" else "cpu",
            "disk": _disk(settings, stored_bytes(study, patients, values)),
            "stand_ins": patients,
        }
    )
    minutes = _minutes(settings, study, patients)
    return told.model_copy(update={"minutes_a_round": minutes, "memory": _memory(settings)})


def labels_state(settings: SiteSettings, study: StudySpec) -> LabelsState:
    """Say whether the table of labels that site.yaml names is there and has the study's columns."""
    wanted = label_columns(study)
    if study.kind != "tabular" and wanted and all(column in settings.labelling.reports for column in wanted):
        return "in-reports"
    table = settings.table if study.kind == "tabular" else settings.labels
    try:
        present = columns_in(table, "") if table is not None else None
    except LabelsError:
        present = None
    if present is None:
        return "missing"
    return "found" if set(wanted) <= set(present) else "no-column"


def label_columns(study: StudySpec) -> tuple[str, ...]:
    """Return the columns that a study reads of a hospital's table, beside those that name patients. Pure."""
    if study.kind == "segmentation":
        return ()
    features = tuple(feature.column for feature in study.table.features) if study.kind == "tabular" else ()
    time = () if study.label.time_column is None else (study.label.time_column,)
    return (*features, *time, *(columns_of(study.label) if study.kind != "regression" else (study.label.column,)))


def names_state(settings: LabelSettings, study: StudySpec) -> NamesState:
    """Say how many of the study's classes site.yaml names as the meaning of a local word. Pure.

    Of masks the background is none: what is unknown in them is background.
    """
    in_words = study.kind == "segmentation" or not study.label.several or study.label.separator is not None
    if study.kind in ("regression", "tabular") or not in_words:
        return "not-needed"
    classes = study.label.classes[1:] if study.kind == "segmentation" else study.label.classes
    meant = {folded(word) for word in settings.names.values()}
    named = [folded(name) in meant for name in classes]
    return "every" if all(named) else "some" if any(named) else "none"


def whole_memory(meminfo: str | None, group_limit: str | None) -> int | None:
    r"""Return the bytes that the machine has, or that the control group allows; None if neither tells. Pure.

    >>> whole_memory("MemTotal: 8 kB\nMemAvailable: 4 kB\n", "3000\n"), whole_memory("MemTotal: 8 kB\n", "max\n")
    (3000, 8192)
    """
    lines = [line.split() for line in (meminfo or "").splitlines()]
    figures = [int(words[1]) * 1024 for words in lines if words[:1] == ["MemTotal:"]]
    if group_limit and group_limit.strip().isdecimal():
        figures.append(int(group_limit))
    return min(figures) if figures else None


def _decoders(settings: SiteSettings) -> DecodersState:
    return "all" if all(found.level == "ok" for found in decoders.examine(settings)) else "some-missing"


def _disk(settings: SiteSettings, needed: int) -> Sufficient:
    try:
        return "suffices" if needed <= shutil.disk_usage(settings.paths.worker).total else "too-small"
    except OSError:
        return "unseen"


def _memory(settings: SiteSettings) -> Sufficient:
    texts = [path.read_text(encoding="utf-8") if path.exists() else None for path in (MEMINFO, GROUP / "memory.max")]
    whole = whole_memory(*texts)
    if whole is None:
        return "unseen"
    return "suffices" if peak_bytes() * settings.processes <= whole else "too-small"


def _minutes(settings: SiteSettings, study: StudySpec, patients: int) -> Minutes:
    torch.set_num_threads(threads_worth(study, min(settings.threads, usable_cores())))
    first, *others = timed_steps(study, stand_ins(study, patients), lambda _: None)
    mean = statistics.fmean(others or [first])
    seconds = max(0.0, first - mean) + mean * study.noised_steps
    return "not-measured" if not math.isfinite(seconds) else rounded_up(seconds / SECONDS_A_MINUTE)
