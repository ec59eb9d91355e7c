"""The list of steps that a study names for what travels: read, checked, and asked for what it means. Pure.

    top-k:FRACTION      the largest values of each block travel, with their places       (`choice.py`, `index_sets.py`)
    random-k:FRACTION   values at places that all sites derive alike; only values travel  (`choice.py`)
    quantise:BITS       values become levels of 2 to 16 bits                              (`quantisation.py`)
    half[:FORMAT]       values become float16 (or bfloat16)                               (`quantisation.py`)
    zstandard           the bytes are compressed without loss

Steps stand in this order: first which values travel, then how each is written, then the bytes. Of each of the three
kinds a list holds at most one.

    >>> steps = parse_steps(["random-k:0.05", "quantise:8", "zstandard"])
    >>> steps.names, steps.is_coded, steps.bits_per_value
    (('random-k', 'quantise', 'zstandard'), True, 8)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

from protocol.errors import CodecError

CodecStep = Literal["top-k", "random-k", "quantise", "half", "zstandard"]
Sparsifier = Literal["top-k", "random-k"]
Precision = Literal["single", "quantise", "half"]
HalfFormat = Literal["float16", "bfloat16"]

FEWEST_BITS, MOST_BITS = 2, 16
LARGEST_TOP_FRACTION = 0.5
"""Above it, places cost more than values save."""
BITS = {"single": 32, "half": 16}


@dataclass(frozen=True)
class CodecSteps:
    """A legal list of steps."""

    sparsifier: Sparsifier | None = None
    fraction: float = 1.0
    precision: Precision = "single"
    bits: int = 32
    half_format: HalfFormat = "float16"
    zstandard: bool = False

    @property
    def names(self) -> tuple[CodecStep, ...]:
        """Return the steps' names without their numbers, as a notice lists them."""
        coded = (self.sparsifier, None if self.precision == "single" else self.precision)
        found = [name for name in coded if name is not None]
        return (*cast("list[CodecStep]", found), *(("zstandard",) if self.zstandard else ()))

    @property
    def is_coded(self) -> bool:
        """Tell whether values are chosen or shortened, so that what travels is no weights file."""
        return self.sparsifier is not None or self.precision != "single"

    @property
    def bits_per_value(self) -> int:
        """Return the bits of a value that travels."""
        return self.bits if self.precision == "quantise" else BITS[self.precision]


def parse_steps(listed: Sequence[str]) -> CodecSteps:
    """Read a study's list.

    Raises: CodecError saying which step is unknown, out of order or has an unusable number.
    """
    steps, places = CodecSteps(), []
    for text in listed:
        name, _, number = text.partition(":")
        reader = _READERS.get(name)
        if reader is None:
            raise CodecError(f"{text!r} is no step. Use {', '.join(_READERS)}.")
        steps = reader(steps, text, number)
        places.append(_PLACES[name])
    if places != sorted(set(places)):
        raise CodecError(
            "Steps stand in the order top-k or random-k, then quantise or half, then zstandard, at most one of each."
        )
    return steps


def _sparsifier(name: Sparsifier, most: float) -> Callable[[CodecSteps, str, str], CodecSteps]:
    def read(steps: CodecSteps, text: str, number: str) -> CodecSteps:
        try:
            fraction = float(number)
        except ValueError:
            fraction = math.nan
        if not 0 < fraction <= most:
            raise CodecError(f"{text!r} needs a fraction above 0 and up to {most:g}, as in {name}:0.05.")
        return replace(steps, sparsifier=name, fraction=fraction)

    return read


def _quantise(steps: CodecSteps, text: str, number: str) -> CodecSteps:
    bits = int(number) if number.isdecimal() and len(number) <= 2 else 0
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise CodecError(f"{text!r} needs {FEWEST_BITS} to {MOST_BITS} bits, as in quantise:8.")
    return replace(steps, precision="quantise", bits=bits)


def _half(steps: CodecSteps, text: str, number: str) -> CodecSteps:
    if number not in ("", "float16", "bfloat16") or text.endswith(":"):
        raise CodecError(f"{text!r} is no low precision. Use half:float16 or half:bfloat16.")
    return replace(steps, precision="half", half_format=cast("HalfFormat", number or "float16"))


def _zstandard(steps: CodecSteps, text: str, _number: str) -> CodecSteps:
    if text != "zstandard":
        raise CodecError("The step zstandard takes no number.")
    return replace(steps, zstandard=True)


_READERS: Mapping[str, Callable[[CodecSteps, str, str], CodecSteps]] = MappingProxyType(
    {
        "top-k": _sparsifier("top-k", LARGEST_TOP_FRACTION),
        "random-k": _sparsifier("random-k", 1.0),
        "quantise": _quantise,
        "half": _half,
        "zstandard": _zstandard,
    }
)
_PLACES = MappingProxyType({"top-k": 0, "random-k": 0, "quantise": 1, "half": 1, "zstandard": 2})
