"""Errors of the ui package.

    UiError
    ├── HubUnreachableError  no answer from the hub
    ├── SiteUnreachableError no answer from the hospital's own node
    ├── HubAnswerError       an answer that this version does not understand
    ├── HubRefusedError      the hub, or the hospital's own node, said no, with its own sentence and remedy
    │   └── SignedOutError   the token is missing, expired or no longer valid
    └── PortError            no port to listen on

Each carries a sentence and a remedy, because both are shown to a person.
"""


class UiError(Exception):
    """Base of all errors of this package."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class HubUnreachableError(UiError):
    """No answer from the hub."""


class SiteUnreachableError(UiError):
    """No answer from the hospital's own node."""


class HubAnswerError(UiError):
    """An answer that this version does not understand."""


class HubRefusedError(UiError):
    """The hub, or the hospital's own node, said no; `code` is a hub's machine-readable word."""

    def __init__(self, message: str, remedy: str = "", code: str = "") -> None:
        super().__init__(message, remedy)
        self.code = code


class SignedOutError(HubRefusedError):
    """The token is missing, expired or no longer valid."""


class PortError(UiError):
    """No port to listen on."""
