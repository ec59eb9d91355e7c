"""The systemd units in the documents: no user of a site gets a network without a wall, nor a way to more rights."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
UNIT = re.compile(r"^    \[Service\]\n(?:    \S.*\n)+", re.MULTILINE)


def units() -> list[tuple[str, dict[str, list[str]]]]:
    found = []
    for page in sorted(DOCS.glob("*.md")):
        for text in UNIT.findall(page.read_text(encoding="utf-8")):
            unit: dict[str, list[str]] = {}
            for line in text.splitlines()[1:]:
                name, _, value = line.strip().partition("=")
                unit.setdefault(name, []).append(value)
            found.append((page.name, unit))
    return found


OF_A_SITE = [(page, unit) for page, unit in units() if unit.get("User", [""])[0].startswith("wr-")]


def test_gate_worker_agent_ingest_and_what_serves_pages_have_units() -> None:
    assert [(page, unit["User"][0]) for page, unit in OF_A_SITE] == [
        ("images_in.md", "wr-ingest"),
        ("operations.md", "wr-worker"),
        ("operations.md", "wr-agent"),
        ("site_operations.md", "wr-gate"),
        ("site_pages.md", "wr-worker"),
        ("site_pages.md", "wr-pages"),
    ]


@pytest.mark.parametrize(("page", "unit"), OF_A_SITE, ids=[page for page, _ in OF_A_SITE])
def test_a_unit_has_a_wall_and_no_capability(page: str, unit: dict[str, list[str]]) -> None:
    assert unit.get("PrivateNetwork") == ["yes"] or unit.get("IPAddressDeny") == ["any"], page
    assert (unit.get("NoNewPrivileges"), unit.get("CapabilityBoundingSet")) == (["yes"], [""])


def test_the_api_may_write_to_the_gate_s_folder_alone_and_reach_no_address_of_the_internet() -> None:
    [api] = [unit for page, unit in OF_A_SITE if page == "site_operations.md"]
    assert api["ProtectSystem"] == ["strict"]
    assert [Path(place).name for place in api["ReadWritePaths"]] == ["gate"]
    assert api["IPAddressAllow"] == ["localhost", "10.1.2.0/24"]


def test_the_reading_api_may_write_to_the_worker_s_folder_alone_and_the_pages_see_nothing_of_the_site() -> None:
    reading, pages = [unit for page, unit in OF_A_SITE if page == "site_pages.md"]
    for unit in (reading, pages):
        assert (unit["ProtectSystem"], unit["IPAddressAllow"]) == (["strict"], ["localhost"])
    assert [Path(place).name for place in reading["ReadWritePaths"]] == ["worker"]
    assert "ReadWritePaths" not in pages
    [closed] = pages["InaccessiblePaths"]
    assert Path(reading["ReadWritePaths"][0]).is_relative_to(closed)
