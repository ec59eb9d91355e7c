"""Make the tables of docs/study_specification.md from StudySpec: run this file to write them anew."""

from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from protocol.study import StudySpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "study_specification.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def tables() -> str:
    """Return one table for the top level and one for each part."""
    parts = [_table("The study", StudySpec, "")]
    for name, field in StudySpec.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            parts.append(_table(f"`{name}`", part, (part.__doc__ or "").split("\n\n")[0]))
    return "\n".join(parts)


def _table(title: str, part: type[BaseModel], words: str) -> str:
    lines = [
        f"### {title}\n",
        *([words + "\n"] if words else []),
        "| key | default | allowed | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in part.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{field.alias or name}` | {_default(field)} | {_allowed(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    return "`null`" if field.default is None else f"`{field.default}`".replace("'", "").replace("``", "empty")


def _allowed(field: FieldInfo) -> str:
    words = _choices(field.annotation)
    signs = {annotated_types.Ge: ("ge", "at least"), annotated_types.Gt: ("gt", "above")}
    signs |= {annotated_types.Le: ("le", "at most"), annotated_types.Lt: ("lt", "below")}
    for rule in _rules(field):
        if type(rule) in signs:
            attribute, word = signs[type(rule)]
            words.append(f"{word} {getattr(rule, attribute)}")
    return ", ".join(words)


def _rules(field: FieldInfo) -> list[object]:
    found: list[object] = []
    for item in [*field.metadata, *(i for a in get_args(field.annotation) for i in getattr(a, "__metadata__", ()))]:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _choices(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [" or ".join(f"`{choice}`" for choice in get_args(annotation))]
    return [words for inner in get_args(annotation) for words in _choices(inner)]


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")
