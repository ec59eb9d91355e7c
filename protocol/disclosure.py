"""What each field of each message that leaves a hospital may tell about a patient, and what covers it.

A field that is not in this table fails `tests/contracts/test_disclosure.py`, and so does an entry whose field is gone:
who adds a field says here what it tells. `docs/disclosure.md` is made from it. Data and one lookup; no message is
imported, so that a message's own file can point here.

A path names the fields from the message inwards: `privacy.epsilon`; what a dictionary has for keys is `sealed.key`,
what lies under them `sealed.*`; a list's items go by the list's name. `payload` is no field but the bytes that an
`UpdateNotice` announces.
"""

from collections.abc import Mapping
from enum import StrEnum


class Cover(StrEnum):
    """Why a field tells nothing about a patient beyond what the study says it does; the whole vocabulary."""

    ADDRESS = "names who speaks, with which software, and about what: site, study, task, round; the hub knows it anyway"
    PUBLIC_BYTES = "digest of bytes that the hub has, or that everybody may have"
    WORD = "a word of a fixed vocabulary that depends on no patient"
    APPROVED = (
        "a figure, un-noised, that the hospital's administrator approves to be public, or by its rules the policy"
    )
    COUNT = "a number of training patients: noised and charged where the study says so, else exact and approved as such"
    PLANNED = "computed from the study's terms before any patient is touched: planned, not measured"
    NOISED = "released with noise for which the ledger is charged first; in a study without DP it is not protected"
    AFTER_NOISE = "follows from a noised release alone (post-processing); in a study without DP it is not protected"
    HELD_OUT = "counts of held-out patients: noised and charged where the study says so, else un-noised and called so"
    CHANCE = "drawn by chance: keys, commitments, shares of secrets that served this round alone"
    SEALED = "ciphertext, or masked: uniform bytes to whoever lacks the key, of a length that depends on no patient"
    COMMITMENT = "hash over ledger entries in which patients stand under pseudonyms keyed by a secret of the worker"
    TAKING_PART = "whether and how the hospital takes part: a fact about its patients as a whole, un-noised, called so"


_SCHEMA = {"schema": Cover.WORD}
_STUDY = {**_SCHEMA, "site": Cover.ADDRESS, "study_digest": Cover.ADDRESS}
_TASK = {**_STUDY, "task_id": Cover.ADDRESS}
_ANSWER = {**_TASK, "task_digest": Cover.PUBLIC_BYTES}
_MASKING = {**_TASK, "round": Cover.ADDRESS, "task_kind": Cover.WORD}
_ROSTERED = {**_MASKING, "roster_digest": Cover.PUBLIC_BYTES}
_PAIRS = ("patients", "events", "comparable", "concordant", "tied")
_LABELS = ("labels", "class_names")
_STATES = (*_LABELS, "number", "policy", "tasks", "decoders", "device", "disk", "memory", "minutes_a_round")
_EVENT = ("schema", "mechanism", "sampling_rate", "noise_multiplier", "count")

DISCLOSURES: Mapping[str, Mapping[str, Cover]] = {
    "Enrolment": {
        **_SCHEMA,
        "site": Cover.ADDRESS,
        "code": Cover.ADDRESS,
        "identity_key": Cover.CHANCE,
        "transport_key": Cover.CHANCE,
        "protocol_version": Cover.ADDRESS,
    },
    "ReadinessReport": {
        **_STUDY,
        **dict.fromkeys(_STATES, Cover.WORD),
        "train_hours": Cover.APPROVED,
        "epsilon": Cover.PLANNED,
        "noise_multiplier": Cover.PLANNED,
        "stand_ins": Cover.PLANNED,
    },
    "Approval": {
        **_STUDY,
        "decision": Cover.TAKING_PART,
        "reason": Cover.TAKING_PART,
        "training_patients": Cover.COUNT,
        "count_epsilon": Cover.PLANNED,
        "evaluates": Cover.TAKING_PART,
        "expires_at": Cover.APPROVED,
        **{f"quality.{count}": Cover.NOISED for count in ("positive", "unreadable", "repeated")},
        "quality.noise_epsilon": Cover.PLANNED,
    },
    "LedgerCharge": {
        **_STUDY,
        "number": Cover.TAKING_PART,
        "chain": Cover.COMMITMENT,
        "follows.number": Cover.TAKING_PART,
        "follows.chain": Cover.COMMITMENT,
        "delta": Cover.PLANNED,
        "charged.key": Cover.TAKING_PART,
        **{f"charged.*.{field}": Cover.PLANNED for field in _EVENT},
        "unprotected": Cover.PLANNED,
    },
    "Progress": {
        **_SCHEMA,
        "site": Cover.ADDRESS,
        "activity": Cover.WORD,
        "task_id": Cover.ADDRESS,
        "fraction": Cover.PLANNED,
    },
    "TaskRefusal": {**_TASK, "reason": Cover.TAKING_PART},
    "UpdateNotice": {
        **_ANSWER,
        "round": Cover.ADDRESS,
        "base_digest": Cover.PUBLIC_BYTES,
        "payload_digest": Cover.AFTER_NOISE,
        "payload_bytes": Cover.AFTER_NOISE,
        "payload": Cover.NOISED,
        "manifest_digest": Cover.PUBLIC_BYTES,
        "steps": Cover.WORD,
        "weight": Cover.COUNT,
        "privacy.unit": Cover.WORD,
        "privacy.epsilon": Cover.PLANNED,
        "privacy.delta": Cover.PLANNED,
        "privacy.events_digest": Cover.PLANNED,
        "uncut": Cover.NOISED,
        "receipt.told": Cover.COUNT,
        "receipt.patients": Cover.NOISED,
        "receipt.noise_epsilon": Cover.PLANNED,
        "receipt.steps": Cover.PLANNED,
        "receipt.software": Cover.ADDRESS,
        "key_id": Cover.CHANCE,
    },
    "EvaluationReport": {
        **_ANSWER,
        "version.number": Cover.ADDRESS,
        "version.weights_digest": Cover.PUBLIC_BYTES,
        "version.weights_bytes": Cover.PUBLIC_BYTES,
        "version.manifest_digest": Cover.PUBLIC_BYTES,
        "histograms.key": Cover.TAKING_PART,
        "histograms.*.bins": Cover.PLANNED,
        "histograms.*.negative": Cover.HELD_OUT,
        "histograms.*.positive": Cover.HELD_OUT,
        "histograms.*.noise_variance": Cover.PLANNED,
        "classes.key": Cover.TAKING_PART,
        "classes.*.bins": Cover.PLANNED,
        "classes.*.negative": Cover.HELD_OUT,
        "classes.*.positive": Cover.HELD_OUT,
        "classes.*.noise_variance": Cover.PLANNED,
        "pairs.key": Cover.TAKING_PART,
        **{f"pairs.*.{count}": Cover.HELD_OUT for count in _PAIRS},
        "values.key": Cover.TAKING_PART,
        "values.*.figure": Cover.WORD,
        **{f"values.*.{term}": Cover.PLANNED for term in ("bins", "low", "high", "noise_variance")},
        "values.*.counts": Cover.HELD_OUT,
        "noise_epsilon": Cover.PLANNED,
    },
    "MaskingKeys": {
        **_MASKING,
        "channel_key": Cover.CHANCE,
        "mask_key": Cover.CHANCE,
        "seed_commitment": Cover.CHANCE,
    },
    "MaskingShares": {**_ROSTERED, "sealed.key": Cover.ADDRESS, "sealed.*": Cover.SEALED},
    "MaskedHistograms": {
        **_ROSTERED,
        "task_digest": Cover.PUBLIC_BYTES,
        "noise_epsilon": Cover.PLANNED,
        "words": Cover.SEALED,
    },
    "SurvivorsSeen": {**_ROSTERED, "members_digest": Cover.ADDRESS, "survivors_digest": Cover.ADDRESS},
    "MaskingReveal": {
        **_ROSTERED,
        "seed_shares.key": Cover.ADDRESS,
        "seed_shares.*": Cover.CHANCE,
        "key_shares.key": Cover.ADDRESS,
        "key_shares.*": Cover.CHANCE,
    },
}

REMARKS: Mapping[tuple[str, str], str] = {
    ("ReadinessReport", "labels"): "a setting, and a table's first line; told only where a person sends the report",
    ("ReadinessReport", "class_names"): "a setting: whether anybody's label is one of these classes is not looked at; "
    "told only where a person sends the report",
    ("ReadinessReport", "disk"): "of the disk as a whole; what is free follows from the images that lie there",
    ("ReadinessReport", "minutes_a_round"): "the next step of a fixed ladder, timed on `stand_ins` images of noise; "
    "other work on the same machine lengthens it",
    ("ReadinessReport", "train_hours"): "hours of the week, by site.yaml",
    (
        "Approval",
        "training_patients",
    ): "with `privacy.count_epsilon` those who train, noised. Else exact: who matches, with those whom a spent budget "
    "keeps out; with `approval: automatic` no person sees it, and it leaves only where no numbers told, compared, tell "
    "a new group under `minimum_patients` apart. 0, if nobody trains, is exact always",
    ("Approval", "reason"): "of the study alone, or `not-approved` by a person: none says what was counted; that a "
    "hospital does not answer is seen",
    (
        "Approval",
        "quality.unreadable",
    ): "how many training patients have a damaged or missing image; never how many images",
    ("LedgerCharge", "charged.key"): "a group that the study does not touch at this hospital is not charged",
    ("LedgerCharge", "number"): "how many entries the ledger has: with how many studies and budgets it dealt",
    ("Progress", "fraction"): "of planned steps, in hundredths; how fast it moves is timing, which nothing covers",
    ("TaskRefusal", "reason"): "some words, such as `no-held-out-patients` or `out-of-memory`, follow from patients",
    (
        "UpdateNotice",
        "payload",
    ): "the update, under masks or encryption sealed as well (shared noise: whole in the sum only); or a decrypted sum",
    ("UpdateNotice", "payload_bytes"): "compressed size of noised values; under masks or encryption a constant",
    ("UpdateNotice", "uncut"): "whether the update was cut to the round's length, as a noised bit",
    (
        "UpdateNotice",
        "receipt.patients",
    ): "how many of those whom `receipt.told` counts have not opted out since, with fresh noise in every receipt; only "
    "with `privacy.receipt_epsilon`, charged for all tasks. Spent budgets do not change it: an exact `told` counts "
    "these patients, and so does this; a noised one does not, nor does this. Images and reasons stay at the hospital",
    ("UpdateNotice", "receipt.told"): "`training_patients` of the approval once more",
    ("UpdateNotice", "weight"): "`training_patients` of the approval, or 1; 1 under masks, where the approval tells it",
    ("EvaluationReport", "histograms.key"): "which of validation and test the hospital has patients for",
    ("EvaluationReport", "histograms.*.negative"): "un-noised, its length tells how many different scores there are",
    ("EvaluationReport", "classes.key"): "as `histograms.key`, with several classes or findings",
    ("EvaluationReport", "classes.*.negative"): "a patient is counted for each class",
    ("EvaluationReport", "pairs.key"): "as `histograms.key`, in a survival study",
    ("EvaluationReport", "pairs.*.comparable"): "never noised: one patient is in as many pairs as there are others",
    ("EvaluationReport", "values.key"): "as `histograms.key`, in a study of segmentation or regression",
    ("EvaluationReport", "values.*.counts"): "how many held-out patients have a Dice coefficient, or an error, in each "
    "step of the range",
    (
        "MaskedHistograms",
        "words",
    ): "counts of held-out patients; the hub opens their sum over the survivors alone, and that is called un-noised",
    ("MaskingReveal", "seed_shares.*"): "for survivors only; for the lost only `key_shares`: never both of one site",
}

NOT_COVERED: tuple[str, ...] = (
    "When a message leaves, and how long a task took: drawn patients and images take time, and the hub can measure it.",
    "How fast `Progress.fraction` moves within a task, for the same reason.",
    "That a message is not sent: a crash, a pause, a job out of memory.",
    "Lengths on the wire, where they are not stated above as constant: they follow from the fields.",
    "What the agent says for itself: its address, how far a transfer has come, when it asks for mail.",
)


def cover_of(kind: str, path: str) -> Cover:
    """Return what covers a field. Raises: KeyError if nobody has said what it tells."""
    return DISCLOSURES[kind][path]
