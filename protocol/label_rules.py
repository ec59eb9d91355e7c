"""What a study may not say of its labels: classes, findings and their weights; refused with reason and remedy. Pure."""

from protocol.study import StudySpec

OWN_COLUMNS = frozenset({"patient_id", "sop_instance_uid", "split"})
"""Columns of labels.csv, or of a table, that have their own meaning."""


def label_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule that the study's label breaks."""
    return [*_classes(study), *_findings(study), *_weights(study)]


def _classes(study: StudySpec) -> list[str]:
    classes, found = [name.strip().casefold() for name in study.label.classes], list[str]()
    if len(set(classes)) != len(classes):
        found.append("label.classes: the same class stands twice. Give each class its own name.")
    if study.is_survival and len(classes) > 2:
        found.append(
            "label.classes: survival has two, without and with the event. Join or choose classes until two are left."
        )
    if study.outcome in ("multi-class", "multi-label") and study.site_rates.reads_quality:
        found.append(
            "site_rates.adapt: the figures of quality say how evenly two classes are spread, and there are "
            f"{len(classes)}. Set it to updates or none."
        )
    return found


def _findings(study: StudySpec) -> list[str]:
    label, found = study.label, list[str]()
    if not label.several:
        if label.separator is not None:
            found.append("label.separator: one class is all that a patient has. Leave it out, or set label.several.")
        return found
    if study.is_survival or study.is_judged_by_values:
        return ["label.several: findings are learnt by classification only. Leave it out."]
    if label.separator is not None:
        if any(label.separator in name for name in label.classes):
            found.append("label.separator: it stands within a class's name. Choose another, or rename the class.")
        return found
    features = {feature.column for feature in study.table.features}
    taken = {name for name in label.classes if name.casefold() in OWN_COLUMNS or name in features}
    if taken:
        found.append(
            "label.classes: each finding has a column of its name, and patient_id, sop_instance_uid, split and "
            "table.features are other columns. Rename the finding, or set label.separator."
        )
    if study.kind == "tabular" and label.column != "label":
        found.append("label.column: each finding has a column of its own. Leave it out, or set label.separator.")
    return found


def _weights(study: StudySpec) -> list[str]:
    label, found = study.label, list[str]()
    balanced = label.balance != "stated"
    asks = (("weights", bool(label.weights)), ("balance", balanced), ("focal", label.focal > 0))
    asked = [key for key, is_asked in asks if is_asked]
    if asked and (study.is_survival or study.is_judged_by_values):
        return [f"label.{key}: it is of classes, which this study does not learn. Leave it out." for key in asked]
    if label.weights and len(label.weights) != len(label.classes):
        found.append(
            f"label.weights: {len(label.weights)} weights for {len(label.classes)} classes. State one for each."
        )
    if balanced and label.weights:
        found.append("label.balance: the weights are stated, or made of figures, not both. Leave label.weights out.")
    if balanced and study.outcome != "binary":
        found.append("label.balance: the figures count one class of two. State label.weights instead.")
    elif balanced and not study.site_rates.reads_quality:
        found.append(
            "label.balance: the weights are made of the noised quality figures, which this study does not read. Set "
            "site_rates.adapt to quality and site_rates.quality_epsilon (with least and most 1 rates stay the same)."
        )
    return found
