"""The one place where illegal combinations in a study are refused, each with its reason and remedy. Pure."""

from protocol.count_rules import count_problems
from protocol.label_rules import label_problems
from protocol.mechanism_rules import mechanism_problems
from protocol.pace_rules import pace_problems
from protocol.preprocessing_rules import preprocessing_problems
from protocol.secure_rules import secure_problems
from protocol.site_rate_rules import site_rate_problems
from protocol.strategy_rules import strategy_problems
from protocol.study import StudySpec
from protocol.table_rules import table_problems
from protocol.task_rules import task_problems
from protocol.training_rules import training_problems
from protocol.transport_rules import transport_problems
from protocol.unused_keys import unused_keys

DELTA_PATIENT_FACTOR = 10


def problems_of(study: StudySpec) -> list[str]:
    """Return one sentence for each rule that the study breaks; empty if it is legal."""
    found = [*_privacy(study), *_cohort(study), *label_problems(study), *_evaluation(study)]
    found += [*mechanism_problems(study), *secure_problems(study), *table_problems(study)]
    found += [*pace_problems(study), *training_problems(study), *transport_problems(study)]
    found += [*strategy_problems(study), *site_rate_problems(study), *count_problems(study)]
    found += [*task_problems(study), *preprocessing_problems(study), *unused_keys(study)]
    return [sentence for sentence in found if sentence]


def delta_problem(delta: float, training_patients: int, override: str | None) -> str | None:
    """Say why a delta is too large for a federation of so many training patients, or None.

    With delta near 1/n a mechanism may publish a random patient outright and still be (epsilon, delta)-private.
    """
    limit = 1.0 / (DELTA_PATIENT_FACTOR * training_patients)
    if delta <= limit or override:
        return None
    return (
        f"privacy.delta: {delta:g} is above 1/({DELTA_PATIENT_FACTOR} x {training_patients} training patients) "
        f"= {limit:.3g}, so the guarantee would allow a patient to be revealed outright. "
        "Lower delta, or state the reason in privacy.allow_large_delta."
    )


def _privacy(study: StudySpec) -> list[str | None]:
    if study.privacy.epsilon is None:
        return []
    found: list[str | None] = []
    patients = study.participants.training_patients
    if patients is None:
        found.append(
            "participants.training_patients: required with privacy.epsilon, because delta is judged by it. "
            "State the number of training patients expected in the whole federation, or set privacy.epsilon: null."
        )
    else:
        found.append(delta_problem(study.privacy.delta, patients, study.privacy.allow_large_delta))
    if study.network.normalisation == "batch" and study.privacy.mechanism != "site-level":
        found.append(
            "network.normalisation: 'batch' mixes the patients of a batch, so no gradient belongs to one patient "
            "and DP-SGD's clipping bounds nothing. Use 'group', or set privacy.epsilon: null."
        )
    return found


def _cohort(study: StudySpec) -> list[str | None]:
    found: list[str | None] = []
    low, high = study.cohort.age_min_years, study.cohort.age_max_years
    if low is not None and high is not None and low > high:
        found.append(f"cohort: age_min_years {low} is above age_max_years {high}. Exchange them.")
    first, last = study.cohort.date_from, study.cohort.date_until
    if first is not None and last is not None and first > last:
        found.append(f"cohort: date_from {first} is after date_until {last}. Exchange them.")
    if study.splits.validation + study.splits.test >= 1:
        found.append("splits: validation and test together must leave patients to train on. Lower them below 1 in sum.")
    return found


def _evaluation(study: StudySpec) -> list[str | None]:
    found: list[str | None] = []
    evaluated = (study.rounds - 1) // study.evaluation.every + 2
    if study.evaluation.at_most < evaluated:
        found.append(
            f"evaluation.at_most: {study.evaluation.at_most} is fewer than the {evaluated} evaluations planned. "
            "Raise it, or evaluate less often (evaluation.every)."
        )
    if study.evaluation.final_version == "best-validation" and "validation" not in study.evaluation.splits:
        found.append("evaluation.final_version: 'best-validation' needs 'validation' in evaluation.splits. Add it.")
    return found
