"""docs/disclosure.md says what protocol/disclosure.py says."""

import importlib.util
from pathlib import Path


def test_the_tables_of_what_leaves_are_the_code_s() -> None:
    source = importlib.util.spec_from_file_location("disclosure_table", Path(__file__).with_name("disclosure_table.py"))
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    assert module.tables() in module.DOCUMENT.read_text(encoding="utf-8"), "run: python tests/docs/disclosure_table.py"
