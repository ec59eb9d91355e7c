"""What a study may not spend on figures of its training patients. Pure; each rule with its reason and remedy.

Called by `study_rules.py`.
"""

from protocol.study import StudySpec


def count_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of `privacy.count_epsilon` that the study breaks."""
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
