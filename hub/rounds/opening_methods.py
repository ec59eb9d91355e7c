"""The methods of secure aggregation, by the name in a study's `secure_aggregation.method`."""

from hub.rounds.decrypting import EncryptionMethod
from hub.rounds.masking import MaskingMethod
from hub.rounds.opening import OpeningMethod
from protocol.study import StudySpec

METHODS: dict[str, OpeningMethod] = {"masking": MaskingMethod(), "homomorphic": EncryptionMethod()}


def opening_of(study: StudySpec) -> OpeningMethod | None:
    """Return the study's method, or None where the hub sees each update."""
    return METHODS.get(study.secure_aggregation.method)
