"""Errors of the hub package.

    HubError                      code, message, remedy; `api/errors.py` gives each its HTTP status
    ├── NotFoundError             there is no such study, version, site, blob
    ├── StateError                the thing exists, but its state does not allow this
    ├── RequestError              the request is not understood
    │   └── RequestTooLargeError  it is larger than what the hub reads
    ├── AuthenticationError       nobody knows who is calling
    │   ├── ClockSkewError        the caller's clock and the hub's differ too much
    │   ├── SignInDelayedError    too many wrong passwords; it says for how long
    │   └── InvitationError       an invitation code is wrong, used or expired
    ├── NotPermittedError         the caller is known and may not do this
    ├── AdmissionError            an update or report does not fit its task; it is refused and recorded
    ├── ChargeMissingError        an approval came before the charge of the site's privacy ledger; it is sent again
    ├── AggregationError          accepted updates cannot be made into a version
    ├── BlobError                 bytes are not what their digest says
    └── SettingsError             the hub's own folder or settings are not usable

A message says what was expected and what came, a remedy what to do. Neither ever holds patient data, a tensor, a
password or a token.
"""

from typing import ClassVar


class HubError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "hub-error"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy


class NotFoundError(HubError):
    """There is no such study, version, site or blob."""

    code = "not-found"


class StateError(HubError):
    """The thing exists, but its state does not allow this."""

    code = "wrong-state"


class RequestError(HubError):
    """The request is not understood."""

    code = "bad-request"


class RequestTooLargeError(RequestError):
    """The request is larger than what the hub reads."""

    code = "too-large"


class AuthenticationError(HubError):
    """Nobody knows who is calling."""

    code = "not-authenticated"


class ClockSkewError(AuthenticationError):
    """The caller's clock and the hub's differ too much."""

    code = "clock-skew"


class SignInDelayedError(AuthenticationError):
    """Too many wrong passwords came from here, or for this name."""

    code = "sign-in-delayed"

    def __init__(self, seconds: int) -> None:
        super().__init__("There were too many wrong passwords.", f"Try again in {seconds} seconds.")
        self.seconds = seconds


class InvitationError(AuthenticationError):
    """An invitation code is wrong, used or expired."""

    code = "bad-invitation"


class NotPermittedError(HubError):
    """The caller is known and may not do this."""

    code = "not-permitted"


class AdmissionError(HubError):
    """An update or report does not fit its task; it is refused and recorded."""

    code = "not-admitted"


class ChargeMissingError(HubError):
    """An approval came before the charge of the site's privacy ledger; the site sends it again."""

    code = "charge-missing"


class AggregationError(HubError):
    """Accepted updates cannot be made into a version."""

    code = "not-aggregated"


class BlobError(HubError):
    """Bytes are not what their digest says."""

    code = "bad-blob"


class SettingsError(HubError):
    """The hub's own folder or settings are not usable."""

    code = "bad-settings"
