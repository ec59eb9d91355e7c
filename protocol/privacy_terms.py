"""The part of a study that says what is hidden, how well, and by which noise.

Its rules are in `study_rules.py`, `mechanism_rules.py` and `count_rules.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from protocol.study_parts import Fraction, Part, Positive, ShortText


class Privacy(Part):
    """Differential privacy of everything that training sends; epsilon null turns it off, visibly.

    `dp-sgd`: each site noises its own steps, and trusts nobody. `shared-noise`: every step is one sum under masks, of
    which each site adds its share of the noise. `site-level`: a site's whole update is clipped and noised.
    """

    unit: Literal["patient", "site"] = Field(
        default="patient", description="whose data may change without being noticed; site: all of a site's at once"
    )
    epsilon: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None
    delta: float = Field(default=1e-5, gt=0, lt=1)
    mechanism: Literal["dp-sgd", "shared-noise", "site-level"] = "dp-sgd"
    count_epsilon: Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="epsilon of the noise on each hospital's number of training patients, part of epsilon; null: the "
        "exact number, called so",
    )
    receipt_epsilon: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="epsilon of the noise on each receipt's number of the told patients who have not opted out, part "
        "of epsilon for every task; null: the receipts tell no number",
    )
    clip_norm: Positive = Field(default=1.0, description="L2 norm to which a patient's gradient is clipped")
    honest_fraction: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="shared-noise: of `maximum_sites` hospitals, at most the rest (rounded down) collude with the hub; "
        "the noise counts on the fewest survivors less these",
    )
    update_norm: Positive = Field(default=1.0, description="site-level: L2 norm to which a site's first update is cut")
    update_quantile: Fraction = Field(
        default=0.5, description="site-level: the fraction of updates that the norm shall leave uncut"
    )
    update_norm_rate: float = Field(
        default=0.2, ge=0, le=1, description="site-level: how fast the norm follows the quantile; 0 keeps it"
    )
    spare_tasks: int = Field(default=0, ge=0, le=1000, description="tasks beyond `rounds` that noise is calibrated for")
    allow_large_delta: ShortText | None = Field(
        default=None, description="the reason why delta may exceed 1/(10 x training patients)"
    )
