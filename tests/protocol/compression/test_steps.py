"""The list of steps: what a study may name, in which order, and what is refused."""

import pytest

from protocol.compression.steps import CodecSteps, parse_steps
from protocol.errors import CodecError


def test_a_full_list_is_read_in_order() -> None:
    steps = parse_steps(["top-k:0.01", "quantise:4", "zstandard"])
    assert (steps.sparsifier, steps.fraction, steps.bits, steps.zstandard) == ("top-k", 0.01, 4, True)
    assert steps.names == ("top-k", "quantise", "zstandard")


def test_an_empty_list_and_zstandard_alone_send_weights_files() -> None:
    assert parse_steps([]) == CodecSteps()
    assert not parse_steps([]).is_coded
    assert not parse_steps(["zstandard"]).is_coded
    assert parse_steps(["half"]).is_coded


@pytest.mark.parametrize(
    ("listed", "bits"), [(["half:bfloat16"], 16), (["quantise:3"], 3), (["random-k:0.1"], 32), ([], 32)]
)
def test_the_bits_of_a_value_follow_from_the_list(listed: list[str], bits: int) -> None:
    assert parse_steps(listed).bits_per_value == bits


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["gzip"], "is no step"),
        (["zstandard", "quantise:8"], "in the order"),
        (["quantise:8", "top-k:0.1"], "in the order"),
        (["top-k:0.1", "random-k:0.1"], "at most one"),
        (["quantise:8", "half"], "at most one"),
        (["zstandard", "zstandard"], "at most one"),
        (["top-k"], "needs a fraction"),
        (["top-k:0.6"], "up to 0.5"),
        (["top-k:nan"], "needs a fraction"),
        (["random-k:0"], "above 0"),
        (["random-k:1.1"], "up to 1"),
        (["quantise"], "2 to 16 bits"),
        (["quantise:1"], "2 to 16 bits"),
        (["quantise:17"], "2 to 16 bits"),
        (["quantise:-8"], "2 to 16 bits"),
        (["half:float8"], "no low precision"),
        (["half:"], "no low precision"),
        (["zstandard:3"], "no number"),
    ],
)
def test_what_is_not_legal_is_refused_with_its_reason(listed: list[str], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        parse_steps(listed)
