"""The tables of docs/segmentation.md, made of what `segmentation.py` measured, between marks in the page."""

import re
from collections.abc import Mapping
from typing import Any


def with_tables(page: str, results: Mapping[str, Any]) -> str:
    """Return the page with the table of each task in its place, between `<!-- NAME: begin -->` and `end`."""
    for name, result in results.items():
        marks = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not marks.search(page):
            raise SystemExit(f"The page has no place for the table of {name}.")
        table = table_of(result)
        page = marks.sub(lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", page)  # type: ignore[misc]
    return page


def table_of(result: Mapping[str, Any]) -> str:
    """Return a task's table: a row for each model, a column for each hospital that has held-out patients."""
    models: Mapping[str, Mapping[str, float | None]] = result["models"]
    hospitals = [name for name in models["pooled"] if name != "all"]
    said = {"together": "**all hospitals together**", "pooled": "all patients in one place"}
    head = ["trained by", *(name.upper() if len(name) == 2 else name for name in hospitals), "all held-out patients"]
    lines = [head, ["---", *["---:"] * (len(hospitals) + 1)]]
    for name, scores in models.items():
        own = f"{name.upper() if len(name) == 2 else name} alone"
        lines.append([said.get(name, own), *(_cell(scores.get(hospital)) for hospital in [*hospitals, "all"])])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds = f"mean of {result['seeds']} seeds (alone: the first)" if result["seeds"] > 1 else "one seed"
    return f"{result['metric']}, {result['steps']} steps, {seeds}:\n\n{rows}\n{_of_each_seed(result)}"


def _of_each_seed(result: Mapping[str, Any]) -> str:
    """Return a sentence that shows how far seeds lie apart; empty where there is one."""
    if result["seeds"] < 2:
        return ""
    together, pooled = (
        ", ".join(_cell(score) for score in result["of_each_seed"][model]) for model in ("together", "pooled")
    )
    return f"\nThe seeds one by one: together {together}; in one place {pooled}.\n"


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
