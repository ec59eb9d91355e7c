"""Make the tables of docs/disclosure.md from protocol/disclosure.py: run this file to write them anew."""

from pathlib import Path

from protocol.disclosure import DISCLOSURES, NOT_COVERED, REMARKS, Cover

DOCUMENT = Path(__file__).parents[2] / "docs" / "disclosure.md"
BEGIN, END = "<!-- fields: begin -->\n", "<!-- fields: end -->\n"


def tables() -> str:
    """Return the covers, one table for each kind of message, and what nothing covers."""
    covers = ["| cover | meaning |", "|---|---|", *(f"| {name_of(cover)} | {cover.value} |" for cover in Cover)]
    parts = ["### The covers\n", "\n".join(covers)]
    for kind, fields in DISCLOSURES.items():
        lines = ["| field | cover | remark |", "|---|---|---|"]
        lines += [
            f"| `{path}` | {name_of(cover)} | {REMARKS.get((kind, path), '')} |" for path, cover in fields.items()
        ]
        parts += [f"\n### {kind}\n", "\n".join(lines)]
    parts += ["\n### What nothing covers\n", "\n".join(f"- {sentence}" for sentence in NOT_COVERED)]
    return "\n".join(parts) + "\n"


def name_of(cover: Cover) -> str:
    """Return a cover's name as it is read."""
    return cover.name.lower().replace("_", " ")


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")
