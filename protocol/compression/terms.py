"""What a study's `transport` means: the steps of an upload and of a download, and what both sides need to undo them."""

from protocol.compression.coding import CodingTerms
from protocol.compression.steps import CodecSteps, parse_steps
from protocol.manifest import Manifest
from protocol.study import StudySpec

SLACK_BYTES = 64 << 10
SLACK_FRACTION = 1 / 128
"""What a lossless compressor may add to bytes that it cannot shorten."""


def upload_steps(study: StudySpec) -> CodecSteps:
    """Return the steps of a site's update, masks aside."""
    return parse_steps(study.transport.upload)


def download_steps(study: StudySpec) -> CodecSteps:
    """Return the steps of the difference between two versions."""
    return parse_steps(study.transport.download)


def keeps_residual(study: StudySpec) -> bool:
    """Tell whether a site keeps what its update's steps lose (error feedback)."""
    asked = study.transport.error_feedback
    return upload_steps(study).sparsifier == "top-k" if asked is None else asked


def upload_terms(study: StudySpec, manifest: Manifest, number: int) -> CodingTerms:
    """Return what a site and the hub know of the coded update of a round."""
    return CodingTerms(upload_steps(study), manifest, study.digest, number, keeps_residual(study))


def most_upload_bytes(terms: CodingTerms) -> int:
    """Return the most bytes of an update that travels by these steps."""
    whole = terms.most_bytes if terms.steps.is_coded else terms.manifest.payload_bytes
    return with_slack(whole) if terms.steps.zstandard else whole


def with_slack(size: int) -> int:
    """Return the most bytes that so many take after a lossless compressor could not shorten them."""
    return size + int(size * SLACK_FRACTION) + SLACK_BYTES


def norm_factor(study: StudySpec) -> float:
    """Return how many times longer than the training's own update the one that arrives may be.

    Without error feedback, random-k's values count 1/fraction times. With it an update carries what earlier ones lost:
    at most 2/fraction times the longest update (Karimireddy et al. 2019, Lemma 3: 2 sqrt(1 - d) / d with d the
    fraction, and the update itself). Rounding by chance to few levels may make a value of any that is not zero; four
    times the norm covers two bits for values of a normal distribution twice over.
    """
    steps = upload_steps(study)
    rounded = 4.0 if steps.precision == "quantise" else 1.0
    if keeps_residual(study):
        return rounded * (1.0 + 2.0 / steps.fraction)
    return rounded * (1.0 / steps.fraction if steps.sparsifier == "random-k" else 1.0)
