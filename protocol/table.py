"""The columns of a table from which a tabular study learns, and how a value becomes a number for the network.

A value v of a column enters as (v - mean) / deviation. Both are constants of the specification, public and the same at
every hospital: nothing is computed from patients, so there is nothing to account for. A guide or an earlier
publication has such constants; a hospital's own mean would be a figure about its patients.
"""

from typing import Annotated

from pydantic import Field

from protocol.study_parts import Part, Positive

Number = Annotated[float, Field(allow_inf_nan=False)]
MAX_FEATURES = 1024


class Feature(Part):
    """A column of numbers; an empty cell, `NA`, `NaN`, `null` or `?` has no value."""

    column: str = Field(min_length=1, max_length=128, description="column of the hospitals' tables")
    mean: Number = Field(default=0.0, description="taken off each value")
    deviation: Positive = Field(default=1.0, description="divides each value, after the mean was taken off")
    missing: Number | None = Field(
        default=None, description="stands in where a value is missing, in the column's unit; null: such a row falls out"
    )


class Table(Part):
    """The columns that a tabular study learns from."""

    features: list[Feature] = Field(
        default=[],
        max_length=MAX_FEATURES,
        description="each {column, mean: 0, deviation: 1, missing: null}; a value enters as (value - mean) / deviation",
    )
