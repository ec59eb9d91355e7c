"""The sentences behind the protocol's reasons: what a site's own people read, and what they can do. Never sent."""

from protocol.messages import Reason

SENTENCES: dict[Reason, tuple[str, str]] = {
    Reason.NOT_APPROVED: ("The study is not approved here.", "Approve it: `wardround site approve DIR DIGEST`."),
    Reason.APPROVAL_EXPIRED: ("The approval has expired.", "Approve it again, or let it end."),
    Reason.APPROVAL_WITHDRAWN: ("The approval was withdrawn.", "Approve it again, or let it end."),
    Reason.POLICY: ("The policy of this hospital does not allow it.", "See `wardround site studies DIR` for the rule."),
    Reason.BUDGET_SPENT: ("The lifetime budget does not cover it.", "See `wardround site budget DIR`."),
    Reason.LEDGER_BEHIND: (
        "An old backup of the gate was restored: it lacks charges of the privacy ledger, or rounds that were answered.",
        "See what is missing and make up for it: `wardround site reconcile DIR`.",
    ),
    Reason.TOO_MANY_TASKS: ("It is beyond the number of tasks that was approved.", "Ask for a study with more rounds."),
    Reason.ROUND_ALREADY_ANSWERED: ("Another task was given for this round.", "Nothing: one answer leaves a round."),
    Reason.UNKNOWN_STUDY: ("The study was never proposed here.", "Ask the hub's operator."),
    Reason.BAD_TASK: ("The task or study does not fit its own terms.", "Ask the hub's operator; see the gate's log."),
    Reason.TOO_FEW_PATIENTS: (
        "Too few patients are left in the cohort.",
        "Check images and labels.",
    ),
    Reason.LABELS_UNUSABLE: ("labels.csv, or the table, lacks what the study needs.", "See the worker's log."),
    Reason.NO_HELD_OUT_PATIENTS: ("There is no held-out patient to evaluate on.", "Check the column `split`."),
    Reason.UNKNOWN_NETWORK: ("The network or an argument is not permitted.", "See `wardround site networks`."),
    Reason.UNKNOWN_TENSOR: (
        "The study keeps tensors here that its network does not have, or all that it has.",
        "The worker's log names the network's tensors; the study should correct personal.keep.",
    ),
    Reason.BASE_UNAVAILABLE: ("The version to start from is missing or damaged.", "Is the agent running?"),
    Reason.NOT_FINITE: (
        "Training diverged: not finite, or far too large.",
        "The study should lower its learning rate.",
    ),
    Reason.PERSONAL_MODEL_DIVERGED: (
        "This site's personal model diverged and begins again at the next version; the shared model is not touched.",
        "The study should lower its learning rate or personal.ditto.",
    ),
    Reason.PERSONAL_MODEL_GONE: (
        "This site's personal model of that version is not kept any more: it has trained too many rounds since.",
        "Nothing: newer versions are judged. Is the evaluation slow here?",
    ),
    Reason.OUT_OF_MEMORY: ("The memory was not enough.", "Give the worker more, or decline the study."),
    Reason.DEVICE_LOST: (
        "A GPU was lost while it trained, again and again.",
        "See nvidia-smi; or let it go on on the processor: cpu_if_gpu_is_lost in site.yaml.",
    ),
    Reason.DISK_FULL: ("The disk is full.", "Make room on the site's disk."),
    Reason.PAUSED: ("The site is paused.", "Continue with `wardround site resume DIR`."),
    Reason.UNKNOWN_PEER: (
        "A site that the hub put into the masked round is not the one that is pinned here.",
        "Compare fingerprints with its administrator: `wardround site peers DIR`, `wardround site pin DIR NAME KEY`.",
    ),
    Reason.INTERNAL: ("An error inside the site.", "See the worker's and the gate's log."),
}


def sentence_of(reason: Reason) -> str:
    """Return what happened and what to do, for the hospital's own terminal and log."""
    return " ".join(SENTENCES[reason])
