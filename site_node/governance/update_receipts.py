"""The receipt that leaves with an update: written by the gate, of the approval's figure and the worker's noised number.

The worker noises how many it trains on. Where the told number is exact it counts those too whose spent budget kept them
out when the cohort was counted; then so does the receipt, by a sum that is the same in every round. So the two differ
by who has opted out since, all of whom are charged, and by noise: never by the budgets that are spent. What else is in
a receipt, and why, is `protocol/round_receipts.py`.
"""

import functools
from importlib.metadata import version

from protocol.messages import RoundTask, TaskKind
from protocol.noised_counts import LONGEST_DRAW
from protocol.privacy_terms import Privacy
from protocol.round_receipts import RoundReceipt
from protocol.study import StudySpec
from site_node.candidate import Candidate, NoisedUse
from site_node.errors import GateError

REMEDY = "Nothing left. See the worker's log."


def receipt_of(task: RoundTask, study: StudySpec, candidate: Candidate, told: int, trained: int) -> RoundReceipt | None:
    """Return the receipt of a training's candidate; None for what is no training.

    `told` is the number of training patients of the approval, `trained` how many of them were charged to train.
    Raises: GateError if the worker's number is there where the study asks for none, or the reverse; if it has other
        noise than the study says, or cannot be one of so many patients.
    """
    used, asked = candidate.used, study.privacy.receipt_epsilon if task.kind is TaskKind.TRAIN else None
    if (used is None) != (asked is None) or (used is not None and used.noise_epsilon != asked):
        raise GateError("A candidate's number of patients is not noised as the study says, or not asked for.", REMEDY)
    if used is not None and not _is_possible(used, trained):
        raise GateError("A candidate's number of patients cannot be one of the approved cohort.", REMEDY)
    if task.kind is not TaskKind.TRAIN:
        return None
    return RoundReceipt(
        told=told,
        patients=None if used is None else used.patients + _left_out_and_told(study.privacy, told, trained),
        noise_epsilon=asked,
        steps=study.local_steps,
        software=_release(),
    )


def _is_possible(used: NoisedUse, trained: int) -> bool:
    """Tell whether a number can have been noised of 0 up to all who train: draws of 64-bit numbers end."""
    longest = LONGEST_DRAW / used.noise_epsilon
    return -longest - 1 <= used.patients <= trained + longest + 1


def _left_out_and_told(privacy: Privacy, told: int, trained: int) -> int:
    """Return how many patients are in the told number and do not train: none where it is noised, by decision 34."""
    return told - trained if privacy.count_epsilon is None else 0


@functools.cache
def _release() -> str:
    return version("wardround")
