"""Of the series that an imaging study holds twice, the one that is used. Pure, and the same each time.

A scan is often there several times: reconstructed with other kernels, thick and thin, reformatted, or repeated because
the patient moved. Used all, one patient's one examination would count as several. The rule, each line deciding where
those before it do not:

1. original pictures before derived ones (ImageType value 1, PS3.3 C.7.6.1.1.2): reformats repeat what is there;
2. the one that covers more of the patient along the normal, to the whole mm;
3. the thinner slices;
4. the more slices;
5. the smaller series UID, as text: arbitrary, and always the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from site_node.dicom.series import Stack


@dataclass(frozen=True)
class Candidate:
    """A series that makes a volume."""

    series_uid: str
    stack: Stack

    @property
    def is_original(self) -> bool:
        """Tell whether no slice is derived from other pictures."""
        return not any(plane.derived for plane in self.stack.planes)

    @property
    def coverage_mm(self) -> float:
        """Return the distance between the outer faces of the first and the last slice."""
        return len(self.stack.planes) * self.stack.spacing_mm[0]


def chosen(candidates: Sequence[Candidate]) -> Candidate:
    """Return the one series of an imaging study that is used; the order of the argument does not matter.

    Raises: ValueError if there is none to choose from.
    """
    return min(
        candidates,
        key=lambda one: (
            not one.is_original,
            -round(one.coverage_mm),
            round(one.stack.spacing_mm[0], 3),
            -len(one.stack.planes),
            one.series_uid,
        ),
    )
