"""Errors of the protocol package.

    ProtocolError
    ├── DigestError         bytes are not what their digest says, or not canonical JSON
    ├── SignatureError      a signature is missing, foreign or wrong
    ├── SpecificationError  a study specification is illegal; carries one problem and remedy per field
    ├── MessageError        a message does not parse, is of an unknown kind or version
    ├── TensorError         weights do not fit their manifest, or are not finite
    ├── CodecError          a list of steps, or what it made, is not usable
    ├── AccountingError     a privacy event is unknown, or no noise meets the target
    ├── EncryptionError     a key, parameter or ciphertext of homomorphic encryption is not usable
    ├── MaskingError        a key, share, roster or vector of secure aggregation is not usable
    └── MetricError         histograms that cannot be merged

Messages say what was expected, what came and what to do. They never hold patient data or tensor values.
"""


class ProtocolError(Exception):
    """Base of all errors of this package."""


class DigestError(ProtocolError):
    """Bytes are not what their digest says, or not canonical JSON."""


class SignatureError(ProtocolError):
    """A signature is missing, foreign or wrong."""


class SpecificationError(ProtocolError):
    """A study specification is illegal.

    `problems` holds one sentence for each fault: where, what was expected, what to do.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("The study specification is not usable:\n" + "\n".join(f"  - {p}" for p in problems))
        self.problems = problems


class MessageError(ProtocolError):
    """A message does not parse, is of an unknown kind or version."""


class TensorError(ProtocolError):
    """Weights do not fit their manifest, or are not finite."""


class CodecError(ProtocolError):
    """A list of steps is not legal, or coded bytes are not what such a list makes."""


class AccountingError(ProtocolError):
    """A privacy event is unknown, or no noise meets the target."""


class EncryptionError(ProtocolError):
    """A key, parameter or ciphertext of homomorphic encryption is not usable."""


class MaskingError(ProtocolError):
    """A key, share, roster or vector of secure aggregation is not usable."""


class MetricError(ProtocolError):
    """Histograms that cannot be merged."""
