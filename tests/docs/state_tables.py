"""Make the state tables of docs/federation.md from the code's own tables: run this file to write them anew."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from hub.rounds.transitions import ROUND_TABLE, TASK_TABLE
from hub.studies.lifecycle import PARTICIPANT_TABLE, STUDY_TABLE

DOCUMENT = Path(__file__).parents[2] / "docs" / "federation.md"
BEGIN, END = "<!-- states: begin -->\n", "<!-- states: end -->\n"
TABLES: dict[str, Mapping[Any, str]] = {
    "A study": STUDY_TABLE,
    "A hospital's part in a study": PARTICIPANT_TABLE,
    "A round": ROUND_TABLE,
    "A task": TASK_TABLE,
}


def tables() -> str:
    """Return one table for each kind of thing that has a state."""
    return "\n".join(_table(title, table) for title, table in TABLES.items())


def _table(title: str, table: Mapping[Any, str]) -> str:
    lines = [f"### {title}\n", "| state | event | next state |", "|---|---|---|"]
    lines += [f"| {_word(state)} | {_word(event)} | {_word(after)} |" for (state, event), after in table.items()]
    final = sorted({_word(after) for after in table.values()} - {_word(state) for state, _ in table})
    ends = f"\nFinal: {', '.join(final)}.\n" if final else ""
    return "\n".join(lines) + "\n" + ends


def _word(name: str) -> str:
    return str(name.value) if isinstance(name, Enum) else name


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")
