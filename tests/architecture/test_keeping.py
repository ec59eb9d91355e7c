"""Files that need not outlive a power cut, and digests that are taken on trust, are the simulator's alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def users_of(name: str) -> set[str]:
    """Return the files that import a name, or call it as an attribute."""
    found = set()
    for package in ("protocol", "site_node", "hub", "ui", "compose"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                imported = isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names)
                if imported or (isinstance(node, ast.Attribute) and node.attr == name):
                    found.add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("in_one_process", {"compose/simulated_hub.py"}),
        ("kept_as", {"compose/simulated_site.py"}),
        ("KnownDigests", set()),
        (
            "Keeping",
            {"compose/simulated_hub.py", "hub/registry/blobs.py", "hub/rounds/transfers.py"}
            | {"hub/settings.py", "site_node/durable.py"},
        ),
    ],
)
def test_only_the_simulator_chooses_how_files_are_kept(name: str, users: set[str]) -> None:
    assert users_of(name) == users
