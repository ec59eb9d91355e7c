"""What a study may not spend on figures of its training patients. Pure; each rule with its reason and remedy.

Called by `study_rules.py`.
"""

import math

from protocol.study import StudySpec


def count_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of `privacy.count_epsilon` and `receipt_epsilon` that the study breaks."""
    return _of_the_count(study) or _of_the_receipts(study)


def _of_the_receipts(study: StudySpec) -> list[str]:
    each, epsilon, tasks = study.privacy.receipt_epsilon, study.privacy.epsilon, study.maximum_training_tasks
    if each is None or epsilon is None:
        return []
    left = epsilon / 2 - (study.privacy.count_epsilon or 0.0) - (study.site_rates.quality_epsilon or 0.0)
    if each * tasks <= left or left <= 0:  # the latter is the others' rule
        return []
    most = math.floor(1e4 * left / tasks) / 1e4
    remedy = f"Lower it to at most {most:g}" if most >= 0.001 else "Leave it out"
    return [
        f"privacy.receipt_epsilon: {each:g} for each of {tasks} tasks leaves less than half of privacy.epsilon "
        f"{epsilon:g} to training, with all its figures. {remedy}, or plan fewer rounds."
    ]


def _of_the_count(study: StudySpec) -> list[str]:
    counted, epsilon = study.privacy.count_epsilon, study.privacy.epsilon
    if counted is None or epsilon is None:
        return []
    quality = study.site_rates.quality_epsilon or 0.0
    if quality > epsilon / 2 or counted + quality <= epsilon / 2:  # the former is a rule of `site_rate_rules.py`
        return []
    most = epsilon / 2 - quality
    beside = f" and site_rates.quality_epsilon {quality:g}" if quality else ""
    return [
        f"privacy.count_epsilon: {counted:g}{beside} leaves less than half of privacy.epsilon {epsilon:g} to training. "
        + (f"Lower it to at most {most:g}." if most >= 0.01 else "Lower site_rates.quality_epsilon.")
    ]
