"""What is installed: exactly the packages of pyproject.toml, and nobody else's under our names."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = set(PROJECT["tool"]["setuptools"]["packages"])
TOP_LEVEL = sorted({name.split(".")[0] for name in PACKAGES})


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_no_other_distribution_owns_our_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"wardround"}


def test_every_listed_package_exists_and_every_package_is_listed() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in TOP_LEVEL
        for path in (ROOT / top).rglob("__init__.py")
        if "__pycache__" not in path.parts
    }
    assert found == PACKAGES


def test_every_source_file_lies_in_a_listed_package() -> None:
    stray = [
        str(path.relative_to(ROOT))
        for top in TOP_LEVEL
        for path in (ROOT / top).rglob("*.py")
        if ".".join(path.parent.relative_to(ROOT).parts) not in PACKAGES
    ]
    assert stray == []


def test_each_init_is_one_docstring_in_protocol() -> None:
    import ast

    for path in (ROOT / "protocol").rglob("__init__.py"):
        (statement,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(statement, ast.Expr), path


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in pins)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {_name(text) for group in (PROJECT["project"]["dependencies"], *extras) for text in group}
    assert wanted - names == {"wardround"}


def _name(requirement: str) -> str:
    import re

    return re.split(r"[\[<>=! ;]", requirement, maxsplit=1)[0].lower().replace("_", "-")
