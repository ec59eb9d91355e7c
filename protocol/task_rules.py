"""What a study of segmentation or regression must say and cannot have: refused with reason and remedy. Pure."""

from protocol.study import StudySpec
from protocol.task_terms import Regression, Segmentation


def task_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule about what is learnt that the study breaks."""
    found = [*_classes(study), *_parts(study)]
    if study.is_judged_by_values:
        found += _without_classes_of_patients(study)
    if study.kind == "regression" and study.regression.low >= study.regression.high:
        found.append("regression.low: it is not below regression.high. State the range that the numbers lie in.")
    return found


def _classes(study: StudySpec) -> list[str]:
    classes = study.label.classes
    if study.kind == "regression":
        unread = "label.classes: a regression study learns a number and has no classes. Leave them out."
        return [unread] if classes else []
    if len(classes) >= 2:
        return []
    if study.kind == "segmentation":
        return ["label.classes: name the background first, and then at least one class that masks hold."]
    return ["label.classes: name at least two classes; label 0 is the first."]


def _parts(study: StudySpec) -> list[str]:
    found: list[str] = []
    if study.kind != "segmentation" and study.segmentation != Segmentation():
        found.append(f"segmentation: this study is of kind {study.kind}. Leave it out, or set kind: segmentation.")
    if study.kind != "regression" and study.regression != Regression():
        found.append(f"regression: this study is of kind {study.kind}. Leave it out, or set kind: regression.")
    return found


def _without_classes_of_patients(study: StudySpec) -> list[str]:
    found: list[str] = []
    if study.label.several:
        found.append("label.several: findings are learnt by classification. Leave it out, or set kind: classification.")
    if study.cohort.single_class != "evaluate":
        found.append("cohort.single_class: patients of this kind of study have no class. Leave it out.")
    if study.site_rates.reads_quality:
        found.append(
            "site_rates.adapt: the quality figures count positive patients, and patients of this kind of study have no "
            "class. Set it to updates or none."
        )
    return found
