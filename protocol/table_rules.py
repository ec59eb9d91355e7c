"""What a tabular study must say, and what survival leaves without a guarantee: refused with reason and remedy. Pure."""

from protocol.cohort_terms import Cohort
from protocol.preprocessing import Preprocessing
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.study import StudySpec

PATIENT_COLUMNS = ("patient_id", "split")
"""Columns of a site's table that have their own meaning."""


def table_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule that a tabular study breaks, or that a study of images breaks about tables."""
    if study.kind != "tabular":
        return _not_tabular(study)
    found = [*_columns(study), *_of_images(study)]
    return [*found, *_survival(study)] if study.is_survival else found


def _not_tabular(study: StudySpec) -> list[str]:
    found: list[str] = []
    if study.table.features:
        found.append(f"table.features: {study.kind!r} is of images. Set kind: tabular, or leave them.")
    if study.is_survival:
        found.append("label.time_column: survival is learnt from tables only. Set kind: tabular, or leave it.")
    return found


def _columns(study: StudySpec) -> list[str]:
    features = [feature.column for feature in study.table.features]
    if not features:
        return ["table.features: a tabular study names the columns that it learns from. Add them."]
    found: list[str] = []
    if len(set(features)) != len(features):
        found.append("table.features: the same column stands twice. Name each once.")
    reserved = {*PATIENT_COLUMNS, study.label.column, study.label.time_column} & set(features)
    if reserved or study.label.column == study.label.time_column:
        found.append(
            "table.features: patient_id, split, label.column and label.time_column are four columns, none of which is "
            "a feature: the network would be given what it shall find. Take the feature out."
        )
    return found


def _of_images(study: StudySpec) -> list[str]:
    found: list[str] = []
    of_tables = {"minimum_patients", "single_class"}
    if study.cohort.model_dump(exclude=of_tables) != Cohort().model_dump(exclude=of_tables):
        found.append(
            "cohort: a table has no DICOM header, so that its terms choose nobody. Leave the other criteria, and "
            "let the hospitals' tables hold the patients who are meant."
        )
    if study.preprocessing != Preprocessing():
        found.append("preprocessing: it is of images. Leave it; table.features says how values are scaled.")
    return found


def _survival(study: StudySpec) -> list[str]:
    found: list[str] = []
    privacy = study.privacy
    if study.training.images_per_patient != 1:
        found.append(
            "training.images_per_patient: a patient is at risk once, so that one row of a drawn patient is used. "
            "Set it to 1."
        )
    if privacy.epsilon is not None and privacy.mechanism != "site-level":
        found.append(
            "privacy.epsilon: Cox's partial likelihood compares each patient with all who are still at risk, so no "
            "gradient belongs to one patient and clipping bounds nothing. Set it to null, or use the mechanism "
            "'site-level'."
        )
    if study.evaluation.noise_epsilon is not None:
        found.append(
            "evaluation.noise_epsilon: concordance counts pairs, and one patient is in as many pairs as there are "
            "other patients, so that the histograms' noise would not cover them. Leave it null; the counts are then "
            "called un-noised."
        )
    if sums_histograms(study):
        found.append(
            "secure_aggregation.method: where updates are hidden held-out counts are summed under masks, which pairs "
            "of patients are not. Set it to none, and evaluation.sum_under_masks to false."
        )
    return found
