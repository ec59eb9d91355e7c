"""Errors of a hospital's node.

    SiteError                       reason: internal
    ├── SettingsError               site.yaml, policy.yaml or a key file is missing or wrong
    ├── IndexingError               a folder or the index itself cannot be used
    ├── UnreadableError             one file is no image that can be used; the message says why
    │   ├── PixelsError             its pixels cannot be decoded
    │   ├── SeriesError             a series' slices make no volume; the message says why
    │   ├── MaskError               a mask cannot be read, or does not fit its picture
    │   │   └── UnknownValueError   it holds values that stand for no class
    │   └── DeidentificationError   no safe copy of it can be made
    ├── CohortError
    │   ├── LabelsError             labels.csv or table is missing, unreadable, lacks a column  labels-unusable
    │   ├── TooFewPatientsError     no or not enough patients are left        too-few-patients
    │   └── NoHeldOutPatientsError  nobody to evaluate on                 no-held-out-patients
    ├── UnknownNetworkError         the network or its arguments are not permitted  unknown-network
    ├── UnknownTensorError          tensors to keep are not of the network          unknown-tensor
    ├── BaseUnavailableError        the version to start from is missing or damaged base-unavailable
    ├── NotFiniteError              training diverged                               not-finite
    ├── PersonalModelError          no personal model to judge
    │   ├── PersonalModelDivergedError   it did not stay finite         personal-model-diverged
    │   └── PersonalModelGoneError       that round's is not kept any more  personal-model-gone
    ├── TrainingProcessLostError    one of several training processes ended
    ├── DeviceLostError             a GPU is not there any more                     device-lost
    ├── DiskFullError               no room left on the disk                        disk-full
    ├── OrderError                  a work order does not parse or does not fit      bad-task
    ├── GateError                   a candidate, ledger or verdict is not as the gate demands
    │   ├── BaseNotHereError        the version to start from is not here yet, or not any more
    │   └── PayloadDamagedError     a payload is not what the worker says that it handed over
    ├── DatabaseError               a database of the site cannot be opened
    ├── BackupError                 a backup cannot be written, read or restored
    ├── ListenerError           images cannot be listened for
    ├── PacsError               the PACS answered, and not with what was asked
    │   ├── PacsAwayError       it does not answer; asking again may help
    │   └── PacsRefusedError    it does not let us in
    ├── CacheError                  prepared images on the disk cannot be read; they are made again
    ├── BundleError                 a MONAI Bundle cannot be written or taken in
    │   └── RefusedBundleError      it holds what would run
    ├── RedisAwayError              the site's own Redis does not answer
    ├── EnrolmentError              the hub refused the enrolment, or it was never done
    └── HubUnreachableError         the hub does not answer; asking again may help
        └── HubRefusedError         the hub answers, and refuses this request

Every error carries a `reason`: the only thing about it that may leave the hospital, from the protocol's fixed
vocabulary. The message and the remedy are for the hospital's own terminal and log; they hold no patient id, no DICOM
value and no path of an image.
"""

from typing import ClassVar

from protocol.messages import Reason


class SiteError(Exception):
    """Base of all errors of this package: what was expected, what came, and what to do (`remedy`)."""

    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(self, message: str, remedy: str = "") -> None:
        ended = message if not remedy or message.endswith((".", "!", "?", ":")) else f"{message}."
        super().__init__(f"{ended} {remedy}".strip())
        self.message = message
        self.remedy = remedy


class SettingsError(SiteError):
    """A file of the site's settings, policy or keys is missing or wrong."""


class BackupError(SiteError):
    """A backup cannot be written, read or restored."""


class IndexingError(SiteError):
    """A folder of images, or the index itself, cannot be used."""


class UnreadableError(SiteError):
    """One file is no image that can be used; the message is the sentence that the quarantine list shows."""


class PixelsError(UnreadableError):
    """The pixels of one image cannot be decoded."""


class SeriesError(UnreadableError):
    """The slices of a series make no volume; the message is one of the sentences of `dicom/series.py`."""


class MaskError(UnreadableError):
    """A mask cannot be read, or does not fit its picture; the message says why, in words of `site_node/labels`."""


class UnknownValueError(MaskError):
    """A mask file holds values that stand for no class; `marks` are all its values that are not background."""

    def __init__(self, message: str, remedy: str, marks: frozenset[int]) -> None:
        super().__init__(message, remedy)
        self.marks = marks


class DeidentificationError(UnreadableError):
    """No safe copy can be made of one file; the message is the sentence that the list of refused files shows."""


class CohortError(SiteError):
    """The study's cohort cannot be made at this site."""


class LabelsError(CohortError):
    """The site's labels.csv or table is missing, unreadable or lacks a column; the message holds nothing of it."""

    reason = Reason.LABELS_UNUSABLE


class TooFewPatientsError(CohortError):
    """No patient, or fewer than the study demands, are left after the cohort's criteria."""

    reason = Reason.TOO_FEW_PATIENTS


class NoHeldOutPatientsError(CohortError):
    """The site holds no patient to evaluate on."""

    reason = Reason.NO_HELD_OUT_PATIENTS


class UnknownNetworkError(SiteError):
    """A study names a network, or an argument of one, that is not permitted."""

    reason = Reason.UNKNOWN_NETWORK


class UnknownTensorError(SiteError):
    """A study keeps tensors at its sites that the network does not have, or all that it has."""

    reason = Reason.UNKNOWN_TENSOR


class BaseUnavailableError(SiteError):
    """The version to start from is missing, damaged or of another shape."""

    reason = Reason.BASE_UNAVAILABLE


class NotFiniteError(SiteError):
    """Training diverged: weights are not finite."""

    reason = Reason.NOT_FINITE


class PersonalModelError(SiteError):
    """This site's own model of a version cannot be judged."""


class PersonalModelDivergedError(PersonalModelError):
    """The personal model of the last trained round did not stay finite."""

    reason = Reason.PERSONAL_MODEL_DIVERGED


class PersonalModelGoneError(PersonalModelError):
    """The site has trained so many rounds since that it keeps nothing of that version's any more."""

    reason = Reason.PERSONAL_MODEL_GONE


class TrainingProcessLostError(SiteError):
    """One of the processes that train a round together ended before the round did."""


class DeviceLostError(SiteError):
    """A GPU that a task was begun on is not there any more, or answers no more."""

    reason = Reason.DEVICE_LOST


class DiskFullError(SiteError):
    """No room is left on the site's disk."""

    reason = Reason.DISK_FULL


class OrderError(SiteError):
    """A work order does not parse, or does not fit the study it names."""

    reason = Reason.BAD_TASK


class GateError(SiteError):
    """A candidate, a ledger or a verdict is not as the gate demands."""


class BaseNotHereError(GateError):
    """The version that a finished task started from is missing or damaged; the agent fetches it, and the gate waits."""


class PayloadDamagedError(GateError):
    """A payload is not what the worker says that it handed over."""


class DatabaseError(SiteError):
    """A database of the site cannot be opened."""


class ListenerError(SiteError):
    """Images cannot be listened for: the address is taken, or another listener runs."""


class PacsError(SiteError):
    """The PACS answered, and not with what was asked; `lasting` if asking again cannot help."""

    def __init__(self, message: str, remedy: str = "", *, lasting: bool = False) -> None:
        super().__init__(message, remedy)
        self.lasting = lasting


class PacsAwayError(PacsError):
    """The PACS does not answer, or has no room for us now; asking again may help."""


class PacsRefusedError(PacsError):
    """The PACS does not let us in: credentials, AE titles or rights; nothing can be fetched until that is mended."""


class CacheError(SiteError):
    """Prepared images on the worker's disk were changed, cut off or sealed with another key."""


class BundleError(SiteError):
    """A version cannot be written as a MONAI Bundle, or a bundle cannot be taken in; the message says why."""


class RefusedBundleError(BundleError):
    """A bundle holds what would run; `bundle_digest` is what a policy can allow."""

    def __init__(self, message: str, remedy: str, bundle_digest: str) -> None:
        super().__init__(message, remedy)
        self.bundle_digest = bundle_digest


class RedisAwayError(SiteError):
    """The site's own Redis does not answer."""


class EnrolmentError(SiteError):
    """The hub refused the enrolment, or it was never done."""


class HubUnreachableError(SiteError):
    """The hub does not answer; asking again may help."""


class HubRefusedError(HubUnreachableError):
    """The hub answers, and refuses this request; `status` is the HTTP status."""

    def __init__(self, message: str, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy)
        self.status = status
