"""Which lists of steps a study may ask for, and with what they do not go; each rule with reason and remedy. Pure."""

from collections.abc import Sequence

from protocol.compression.steps import CodecSteps, parse_steps
from protocol.errors import CodecError
from protocol.strategy_rules import VALUE_BY_VALUE
from protocol.study import StudySpec

UNDER_MASKS = {
    "top-k": "a choice of one site's own would tell where its largest values are, and sums need the same places at "
    "every site. Use random-k, whose places all sites derive alike",
    "quantise": "values are rounded to the levels of the sum already. Set secure_aggregation.value_bits",
    "half": "values are rounded to the levels of the sum already. Set secure_aggregation.value_bits",
    "zstandard": "masked or encrypted bytes look like chance and cannot be compressed. Leave it out",
}
"""Why a step does not go with secure aggregation, and what does."""


def transport_problems(study: StudySpec) -> list[str | None]:
    """Return one sentence for each rule that the study's transport breaks."""
    terms = study.transport
    upload, fault = _read("upload", terms.upload)
    download, other_fault = _read("download", terms.download)
    found = [fault, other_fault]
    if upload is not None:
        found += [*_hidden(study, upload), *_feedback(study, upload), *_joined(study, upload)]
        found += _known_noise(study, upload)
    if download is not None:
        found += _download(study, download)
    return found


def _read(field: str, listed: Sequence[str]) -> tuple[CodecSteps | None, str | None]:
    try:
        return parse_steps(listed), None
    except CodecError as error:
        return None, f"transport.{field}: {error}"


def _hidden(study: StudySpec, steps: CodecSteps) -> list[str | None]:
    if study.secure_aggregation.method == "none":
        return []
    if study.privacy.mechanism == "shared-noise" and steps.names:
        return [
            "transport.upload: shared-noise sends one step's integers with a share of the noise in every value; left "
            "out, cut or rounded again they would not carry the noise that was accounted for. Set transport.upload: []."
        ]
    refused = [name for name in steps.names if name in UNDER_MASKS]
    return [f"transport.upload: {name} under secure aggregation: {UNDER_MASKS[name]}." for name in refused]


def _feedback(study: StudySpec, steps: CodecSteps) -> list[str | None]:
    asked = study.transport.error_feedback
    if asked and not steps.is_coded:
        return [
            "transport.error_feedback: the steps of transport.upload lose nothing that could be kept. Leave it out, or "
            "name a step that does (top-k, random-k, quantise, half)."
        ]
    if asked is False and steps.sparsifier == "top-k":
        return [
            "transport.error_feedback: top-k drops the same small values again and again, and without what it dropped "
            "training need not converge. Leave it out, or use random-k, which is unbiased without it."
        ]
    return []


def _joined(study: StudySpec, steps: CodecSteps) -> list[str | None]:
    if steps.sparsifier != "top-k" or study.strategy.join not in VALUE_BY_VALUE:
        return []
    return [
        f"transport.upload: top-k under strategy.join: {study.strategy.join}: each site sends other values, so what is "
        "compared value by value is mostly zero and the model would stand still. Use random-k, whose places all sites "
        "share, or strategy.join: mean."
    ]


def _known_noise(study: StudySpec, steps: CodecSteps) -> list[str | None]:
    readers = {
        "strategy.weighting: noise": study.strategy.weighting == "noise",
        "fedexp": study.strategy.name == "fedexp",
    }
    if steps.sparsifier is None or study.privacy.epsilon is None:
        return []
    return [
        f"transport.upload: {steps.sparsifier} under {name}: the noise that is taken off the updates' lengths is that "
        "of whole updates, and what travels of one has another length. Use quantise or half, or another strategy."
        for name, reads in readers.items()
        if reads
    ]


def _download(study: StudySpec, steps: CodecSteps) -> list[str | None]:
    found: list[str | None] = []
    if steps.zstandard and not steps.is_coded:
        found.append(
            "transport.download: a version's float32 differences hardly get shorter without loss. Name a step that "
            "shortens them first, as in [quantise:8, zstandard], or leave the list empty."
        )
    if steps.is_coded and study.strategy.releases_mean:
        found.append(
            "transport.download: with strategy.averaging, or fedexp, what is judged is a mean that no site holds, so "
            "it would travel whole beside the differences. Leave the list empty, or use another strategy."
        )
    return found
