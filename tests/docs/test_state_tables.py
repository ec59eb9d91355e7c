"""docs/federation.md shows the states that the code has."""

import importlib.util
from pathlib import Path


def test_the_state_tables_are_the_code_s() -> None:
    source = importlib.util.spec_from_file_location("state_tables", Path(__file__).with_name("state_tables.py"))
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    assert module.tables() in module.DOCUMENT.read_text(encoding="utf-8"), "run: python tests/docs/state_tables.py"
