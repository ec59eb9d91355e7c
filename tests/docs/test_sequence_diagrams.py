"""The sequence diagrams of docs/federation.md speak the code's own words: messages, their direction, HTTP routes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from hub.api.app import ROUTERS
from protocol.message import Message
from protocol.messages import HUB_TO_SITE, SITE_TO_HUB, Enrolment
from site_node.candidate import Candidate, CohortFigures
from site_node.machine_figures import MachineFigures
from site_node.orders import WorkOrder

DOCUMENT = Path(__file__).parents[2] / "docs" / "federation.md"
BLOCK = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?```mermaid\nsequenceDiagram\n(.*?)```", re.DOTALL | re.MULTILINE)
ARROW = re.compile(r"(\w+)(-->>|->>|--x|-x)(\w+): (.+)")
ROUTE = re.compile(r"(GET|POST|PATCH|PUT|DELETE) (/\S+)")
REMARK = re.compile(r"\([^()]*\)")
OTHER_LINES = re.compile(r"participant \w+( as [\w ']+)?|Note over \w+: .+|(alt|else|opt) .+|end")
HUB, INSIDE = "hub", {"gate", "worker"}


@dataclass(frozen=True)
class Arrow:
    """One arrow of a diagram: who tells whom, whether it is an answer, and what, without its remark."""

    source: str
    target: str
    is_answer: bool
    said: str

    @property
    def route(self) -> tuple[str, str] | None:
        found = ROUTE.search(self.said)
        return None if found is None else (found[1], found[2])

    @property
    def names(self) -> list[str]:
        return ROUTE.sub("", self.said).replace(",", " ").split()


def diagrams() -> dict[str, str]:
    """Return the diagrams' lines by the heading under which they stand."""
    return dict(BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")))


def arrows_of(diagram: str) -> Iterator[Arrow]:
    for line in diagram.splitlines():
        found = ARROW.fullmatch(line.strip())
        if found is not None:
            said = REMARK.sub("", found[4]).strip()
            yield Arrow(found[1], found[3], found[2].startswith("--"), said)


def routes() -> set[tuple[str, str]]:
    found = [route for module in ROUTERS for route in module.router.routes if isinstance(route, APIRoute)]
    return {(method, route.path) for route in found for method in route.methods or ()}


def names_of(kinds: tuple[type[Message], ...]) -> set[str]:
    return {kind.__name__ for kind in kinds}


def may_say(arrow: Arrow) -> set[str]:
    """Return what may stand on an arrow."""
    if {arrow.source, arrow.target} <= INSIDE:
        return (
            {WorkOrder.__name__}
            if arrow.target == "worker"
            else {kind.__name__ for kind in (Candidate, CohortFigures, MachineFigures)}
        )
    if arrow.source == HUB:
        return names_of(HUB_TO_SITE)
    return names_of((*SITE_TO_HUB, Enrolment))


ARROWS = [
    pytest.param(arrow, id=f"{title}: {arrow.source} to {arrow.target}: {arrow.said}")
    for title, diagram in diagrams().items()
    for arrow in arrows_of(diagram)
]


@pytest.mark.parametrize("arrow", ARROWS)
def test_an_arrow_names_a_message_of_its_direction_and_a_route_of_the_hub(arrow: Arrow) -> None:
    assert arrow.names or arrow.route or arrow.is_answer, "an arrow that is no answer names what it carries"
    assert set(arrow.names) <= may_say(arrow)
    if arrow.route is not None:
        assert arrow.route in routes()
        assert arrow.target == HUB
    elif arrow.target == HUB:
        pytest.fail("what reaches the hub is carried by a route")


@pytest.mark.parametrize("title", diagrams())
def test_every_line_of_a_diagram_is_understood(title: str) -> None:
    strange = [line for line in diagrams()[title].splitlines() if not ARROW.fullmatch(line.strip())]
    assert [line for line in strange if not OTHER_LINES.fullmatch(line.strip())] == []
    openings, endings = (
        re.findall(rf"^\s*({words})\b", diagrams()[title], re.MULTILINE) for words in ("alt|opt", "end")
    )
    assert len(openings) == len(endings)


def test_every_way_of_running_rounds_has_its_diagram() -> None:
    assert set(diagrams()) == {
        "Before the first round",
        "A synchronous round",
        "Late updates",
        "Buffered rounds",
        "Masked rounds",
        "Transfers that break off",
    }


def test_every_kind_of_message_stands_in_a_diagram() -> None:
    told = {name for diagram in diagrams().values() for arrow in arrows_of(diagram) for name in arrow.names}
    assert names_of((*HUB_TO_SITE, *SITE_TO_HUB, Enrolment)) - told == set()


def test_a_word_that_is_no_message_or_goes_the_wrong_way_would_be_found() -> None:
    wrong, backwards = arrows_of("hub->>agent: RoundTsk (train)\nagent->>hub: POST /v1/messages RoundTask")
    assert not set(wrong.names) <= may_say(wrong)
    assert not set(backwards.names) <= may_say(backwards)
    assert ("POST", "/v1/mesages") not in routes()


def test_a_masked_round_goes_in_the_order_of_its_phases() -> None:
    said = [name for arrow in arrows_of(diagrams()["Masked rounds"]) for name in arrow.names]
    order = ["MaskingKeys", "MaskingRoster", "MaskingShares", "MaskingDelivery", "UpdateNotice"]
    order += ["MaskingSurvivors", "SurvivorsSeen", "MaskingProof", "MaskingReveal"]
    assert [name for name in dict.fromkeys(said) if name in order] == order
