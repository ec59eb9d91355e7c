"""Documents say what is true: links lead somewhere, commands and options exist, tables are the code's."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^ {4}|`)(?:\.venv/bin/)?(wardround [^`\n#]+)", re.MULTILINE)
MODULES = {
    "hub": "hub.cli",
    "site": "site_node.cli",
    "bundle": "site_node.bundles.cli",
    "ui": "ui.cli",
    "demo": "compose.local",
    "simulate": "compose.simulation",
}


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Iterator[Any]:
    for path in DOCUMENTS:
        for text in COMMAND.findall(path.read_text(encoding="utf-8")):
            if "…" not in text and not text.endswith("..."):
                yield pytest.param(text.strip(), id=f"{path.name}: {text.strip()[:60]}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{path.name} links to {target}"


@pytest.mark.parametrize("text", list(commands()))
def test_every_command_in_a_document_exists_with_its_options(text: str) -> None:
    words = [word for word in shlex.split(text.split(" > ")[0]) if word not in {"|", "&&"}][1:]
    if not words or words[0] == "--version":
        return
    command: Any = typer.main.get_command(importlib.import_module(MODULES[words[0]]).app)
    rest = words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0].rstrip(",.;") in command.commands, f"there is no command {text!r}"
        command = command.commands[rest.pop(0).rstrip(",.;")]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert [word for word in rest if word.startswith("--") and word.split("=")[0] not in known] == []


@pytest.mark.parametrize("package", ["site_node", "hub"])
def test_the_architecture_names_every_folder_of_a_package_and_no_other(package: str) -> None:
    parts = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Parts", 1)[1].split("```")[1]
    [said] = re.findall(rf"^{package}/ (.*(?:\n +.*)*)", parts, re.MULTILINE)
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert set(re.findall(r"(\w+)/", said)) == folders


def test_the_tables_of_the_specification_are_the_code_s() -> None:
    source = importlib.util.spec_from_file_location(
        "specification_table", Path(__file__).with_name("specification_table.py")
    )
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    assert module.tables() in module.DOCUMENT.read_text(encoding="utf-8"), (
        "run: python tests/docs/specification_table.py"
    )


def test_the_example_of_a_study_is_legal() -> None:
    from protocol.study import parse_study

    text = (ROOT / "docs" / "study_specification.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse_study(yaml.safe_load(example)).rounds == 10


def test_every_decision_is_listed_and_names_its_bad_sides() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("[0-9]*.md"):
        assert f"({path.name})" in index, path.name
        assert "## What is bad about it\n\n- " in path.read_text(encoding="utf-8"), path.name
