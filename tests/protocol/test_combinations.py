"""Every two of a study's options go together, or are refused with the reason and a remedy.

The table says which are refused; a rule that is added, lost or bent changes it. Those that go together are trained in
whole federations by `tests/federation/test_combinations.py`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from protocol.study import StudySpec
from tests.protocol.combinations import OPTIONS, Choice, all_pairs, pairwise_cover, problems_of, study_data

REFUSED: dict[str, str] = {
    "kind=survival": "method=* mechanism=dp-sgd,shared-noise counts=* classes=three",
    "name=fedexp": "join=* download=quantise method=* mechanism=shared-noise,site-level",
    "name=scaffold": (
        "join=* norm_limit=* late=fold mode=buffered personal=keep proximal=some optimizer=adam site_rates=* "
        "mechanism=shared-noise,site-level"
    ),
    "join=median": "weighting=patients,noise mode=buffered upload=top-k method=* mechanism=shared-noise",
    "join=trimmed-mean": "weighting=patients,noise mode=buffered upload=top-k method=* mechanism=shared-noise",
    "join=krum": "weighting=patients,noise mode=buffered method=* mechanism=shared-noise",
    "join=multi-krum": "weighting=patients,noise mode=buffered method=* mechanism=shared-noise",
    "join=geometric-median": "mode=buffered method=* mechanism=shared-noise",
    "weighting=patients": "mechanism=site-level",
    "weighting=equal": "mechanism=shared-noise",
    "weighting=noise": "personal=keep optimizer=adam method=* mechanism=shared-noise,site-level",
    "norm_limit=three": "method=* mechanism=shared-noise",
    "averaging=half": "download=quantise",
    "late=fold": "mode=buffered method=* mechanism=shared-noise,site-level",
    "deadline=learned": "mode=buffered",
    "sampled=some": "mode=buffered",
    "mode=buffered": "method=* mechanism=shared-noise,site-level counts=summed",
    "upload=zstandard": "method=* mechanism=shared-noise",
    "upload=top-k": "method=* mechanism=shared-noise",
    "upload=quantise": "method=* mechanism=shared-noise",
    "upload=half": "method=* mechanism=shared-noise",
    "upload=random-k": "site_rates=updates mechanism=shared-noise",
    "personal=keep": "mechanism=shared-noise,site-level final_version=best patience=one",
    "personal=ditto": "mechanism=shared-noise,site-level final_version=best patience=one",
    "personal=ditto-global": "mechanism=shared-noise,site-level",
    "proximal=some": "mechanism=shared-noise",
    "optimizer=adam": "mechanism=shared-noise",
    "site_rates=quality": "mechanism=shared-noise,site-level classes=three",
    "site_rates=updates": "method=* mechanism=shared-noise,site-level",
    "method=masking": "mechanism=site-level",
    "method=homomorphic": "mechanism=shared-noise,site-level",
}
"""Of each value the values of later options that it is refused with; *: all but the first, which changes nothing."""


def refused_pairs() -> set[tuple[Choice, Choice]]:
    return {(choice_of(one), other) for one, others in REFUSED.items() for other in choices_of(others)}


def choice_of(text: str) -> Choice:
    option, _, value = text.partition("=")
    return option, value


def choices_of(text: str) -> Iterator[Choice]:
    for option, values in map(choice_of, text.split()):
        for value in list(OPTIONS[option])[1:] if values == "*" else values.split(","):
            yield option, value


CHOICES = [(option, value) for option, values in OPTIONS.items() for value in values]


@pytest.mark.parametrize("choice", CHOICES, ids="=".join)
def test_each_value_alone_makes_a_legal_study(choice: Choice) -> None:
    assert problems_of(dict([choice])) == ()


def test_the_pairs_that_are_refused_are_those_of_the_table() -> None:
    assert {pair for pair in all_pairs() if problems_of(dict(pair))} == refused_pairs()


@pytest.mark.parametrize("pair", sorted(refused_pairs()), ids=lambda pair: "+".join(map("=".join, pair)))
def test_a_refusal_names_a_field_the_reason_and_a_remedy(pair: tuple[Choice, Choice]) -> None:
    for sentence in problems_of(dict(pair)):
        field, _, rest = sentence.partition(":")
        assert has_field(StudySpec, field.split(".")), sentence
        assert re.search(r"\. [A-Z][a-z]+ .+\.$", rest), sentence


def has_field(part: Any, path: list[str]) -> bool:
    if not path:
        return True
    fields: Mapping[str, Any] = part.model_fields if isinstance(part, type) and issubclass(part, BaseModel) else {}
    return path[0] in fields and has_field(fields[path[0]].annotation, path[1:])


def test_the_studies_that_are_trained_hold_every_legal_pair() -> None:
    studies = pairwise_cover()
    assert not [chosen for chosen in studies if problems_of(chosen)]
    covered = {pair for pair in all_pairs() for chosen in studies if set(pair) <= set(chosen.items())}
    assert covered == set(all_pairs()) - refused_pairs()


def test_a_value_s_own_change_goes_before_what_another_needs() -> None:
    study = study_data({"join": "median", "weighting": "patients"})
    assert study["strategy"] == {"join": "median", "weighting": "patients"}
