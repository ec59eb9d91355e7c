"""The findings of an image or patient in a multi-label study: for each class of the study 1, 0, or None: not known."""

from collections.abc import Sequence
from typing import Literal

Findings = tuple[int | None, ...]
"""(finding,); empty in every other study."""
Rule = Literal["any", "all", "majority"]


def patient_label(labels: Sequence[int], rule: Rule) -> int:
    """Make one class of the classes of a patient's images.

    `any` takes the largest number of a class (one positive image makes a positive patient), `all` the smallest,
    `majority` the most frequent; of equally frequent ones the smallest number: a tie of two classes is negative.
    """
    if rule == "any":
        return max(labels)
    if rule == "all":
        return min(labels)
    return max(sorted(set(labels)), key=labels.count)


def patient_findings(of_images: Sequence[Findings], rule: Rule) -> Findings:
    """Make one list of findings of those of a patient's images: by the rule for each, over the images that know it."""
    return tuple(_known(labels, rule) for labels in zip(*of_images, strict=True))


def _known(labels: Sequence[int | None], rule: Rule) -> int | None:
    known = [label for label in labels if label is not None]
    return patient_label(known, rule) if known else None
