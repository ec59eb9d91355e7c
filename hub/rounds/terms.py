"""What an answer must say to fit its task. Pure: AdmissionError says what does not fit."""

from hub.aggregation.opening import expected_steps
from hub.errors import AdmissionError
from protocol.digest import parse_json
from protocol.held_out_checks import counts_problem
from protocol.messages import EvaluationReport, RoundTask, TaskKind, UpdateNotice
from protocol.round_receipts import receipt_problem
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.site_level import bit_deviation, is_adaptive, is_possible_bit
from protocol.study import StudySpec

SAME_STUDY = (
    "Site and hub must hold the same study and task; the site's administrator finds the task in its egress list."
)
LARGEST_PAYLOAD_BYTES = 1 << 40


def stored_task(document: bytes) -> RoundTask:
    """Parse a task that this hub made."""
    return RoundTask.model_validate(parse_json(document))


def check_notice(notice: UpdateNotice, task: RoundTask, study: StudySpec, training_patients: int) -> None:
    """Check the announcement of an update against its task and the approved terms.

    Raises: AdmissionError with the first thing that does not fit.
    """
    if task.kind is TaskKind.EVALUATE:
        raise AdmissionError("The task asks for an evaluation, not for an update.", SAME_STUDY)
    base = task.base.weights_digest if task.base else None
    _same("task", notice.task_digest, task.digest)
    _same("study", notice.study_digest, task.study_digest)
    _same("round", notice.round, task.round)
    _same("base version", notice.base_digest, base)
    method = study.secure_aggregation.method
    _same("list of steps", list(notice.steps), expected_steps(task.kind, study))
    if task.base is not None:
        _same("manifest", notice.manifest_digest, task.base.manifest_digest)
    if task.kind is TaskKind.TRAIN and method != "none":
        _same("weight", notice.weight, 1.0)  # the weight travels inside the vector
    if notice.weight not in (1.0, float(training_patients)):
        raise AdmissionError("The weight is neither 1 nor the figure that the site's approval made public.", SAME_STUDY)
    if not 0 < notice.payload_bytes <= LARGEST_PAYLOAD_BYTES:
        raise AdmissionError(f"An update has between 1 and {LARGEST_PAYLOAD_BYTES} bytes.", SAME_STUDY)
    encrypted = study.secure_aggregation.method == "homomorphic" and task.kind in (TaskKind.TRAIN, TaskKind.DECRYPT)
    _same("key", notice.key_id is not None, encrypted)
    _same("noised bit", notice.uncut is not None, task.kind is TaskKind.TRAIN and is_adaptive(study.privacy))
    if notice.uncut is not None and not is_possible_bit(
        notice.uncut, bit_deviation(study.privacy, task.noise_multiplier)
    ):
        raise AdmissionError("The noised bit is no 0 or 1 with the study's noise.", SAME_STUDY)
    _check_receipt(notice, task, study, training_patients)
    if task.kind is TaskKind.TRAIN and study.privacy.epsilon is not None:
        _check_account(notice, study)


def check_report(report: EvaluationReport, task: RoundTask, study: StudySpec) -> None:
    """Check a report on held-out patients against its task and the approved terms.

    Raises: AdmissionError with the first thing that does not fit.
    """
    if task.kind is not TaskKind.EVALUATE:
        raise AdmissionError("The task asks for an update, not for an evaluation.", SAME_STUDY)
    if sums_histograms(study):
        raise AdmissionError("The study's held-out counts are taken under masks only.", SAME_STUDY)
    _same("task", report.task_digest, task.digest)
    _same("study", report.study_digest, task.study_digest)
    _same("version", report.version, task.base)
    _same("noise", report.noise_epsilon, study.evaluation.noise_epsilon)
    problem = counts_problem(study, report)
    if problem is not None:
        raise AdmissionError(f"The held-out counts {problem}.", SAME_STUDY)


def _check_receipt(notice: UpdateNotice, task: RoundTask, study: StudySpec, training_patients: int) -> None:
    if task.kind is not TaskKind.TRAIN:
        _same("receipt", notice.receipt, None)
        return
    problem = receipt_problem(notice.receipt, study.privacy, training_patients, study.local_steps)
    if problem is not None:
        raise AdmissionError(f"The update's receipt {problem}.", "Do hub and site run the same release of Wardround?")


def _check_account(notice: UpdateNotice, study: StudySpec) -> None:
    if notice.privacy is None:
        raise AdmissionError("The study is private, and the update states no privacy spent.", SAME_STUDY)
    _same("delta of the privacy spent", notice.privacy.delta, study.privacy.delta)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AdmissionError(f"The {what} is not that of the task.", SAME_STUDY)
