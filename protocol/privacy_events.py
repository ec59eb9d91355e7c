"""Privacy events: what was done to patients, as the ledger and the messages keep it. Pydantic only, no accountant.

An event never changes its meaning; one of an unknown mechanism is refused. Epsilon is computed from events by
`privacy_accounting.py` (within a study) and `privacy_filter.py` (over a lifetime).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import canonical_json


class PrivacyEvent(BaseModel):
    """One mechanism, applied `count` times to the same patients. An event never changes its meaning.

    `poisson-gaussian`: each patient drawn with `sampling_rate`, sum of sensitivity 1 with Gaussian noise of standard
    deviation `noise_multiplier`. `discrete-laplace`: each patient changes one count by 1; two-sided geometric noise of
    scale `noise_multiplier`, which composes to a larger epsilon than continuous Laplace noise. `poisson-skellam`: as
    `poisson-gaussian`, in whole numbers on a grid: a patient moves the sum by at most 1024 steps or more (L2), and the
    Skellam noise has a standard deviation of `noise_multiplier` times that (`protocol/skellam.py`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.privacy-event/1"] = Field(default="wardround.privacy-event/1", alias="schema")
    mechanism: Literal["poisson-gaussian", "discrete-laplace", "poisson-skellam"]
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    count: int = Field(ge=1)

    def of_group(self, people: int) -> "PrivacyEvent":
        """Return what the mechanism does to so many of its patients at a time: to one who is in it under several ids.

        At least one of them is drawn with 1 - (1 - rate)^people, and together they move the sum, or the count, by at
        most as many times one's sensitivity; fewer drawn move it by less. An upper bound.
        Source: Ganesh 2024, arXiv:2401.10294 (a group's draws as one mixture of Gaussians, monotone in its shifts).
        """
        rate = 1.0 - (1.0 - self.sampling_rate) ** people
        noise = self.noise_multiplier / people
        return self if people == 1 else self.model_copy(update={"sampling_rate": rate, "noise_multiplier": noise})

    def canonical_bytes(self) -> bytes:
        """Return the bytes that the ledger stores."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))
