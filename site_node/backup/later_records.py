"""What a gate has recorded since a backup that its two ledgers do not tell, so that no restore undoes it unseen.

A withdrawal that has not left yet, a pause, studies that were given up, charges that the hub has named.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from site_node.errors import BackupError
from site_node.governance.switches import OF_THE_GATE

COMES_AGAIN = ("mail", "tasks", "studies", "receipts", "unsent", "masking", "masking_mail")
"""What the hub's letters bring again, or the gate makes again from them; masked rounds of a backup have ended."""
IN_THE_LEDGERS = ("ledger", "egress", "envelopes")
WORDS = {
    "decisions": "decisions on studies",
    "decisions_set_aside": "decisions on studies",
    "switches": "pauses and drains",
    "given_up": "studies given up",
    "lives": "beginnings after a restore",
    "dismissed_heads": "dismissed charges",
    "hub_heads": "charges named by the hub",
    "hub_charges": "charges named by the hub",
}


def later_records(there: Path, backup: Path) -> tuple[str, ...]:
    """Return what the database that is there holds beyond a backup's, in words, each once.

    Raises: BackupError if one of the two cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{there.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            opened.execute("ATTACH ? AS backup", (f"{backup.resolve().as_uri()}?mode=ro",))
            known = _columns(opened, "backup")
            ours = _columns(opened, "main").items()
            found = [table for table, names in ours if _has_more(opened, table, names, known.get(table, []))]
    except sqlite3.Error as error:
        raise BackupError(
            f"The gate's database cannot be read ({type(error).__name__}).", "Is it whole? See the gate's log."
        ) from None
    return tuple(dict.fromkeys(WORDS.get(table, "counts and accounts of patients") for table in sorted(found)))


def _columns(opened: sqlite3.Connection, schema: str) -> dict[str, list[str]]:
    tables = opened.execute(
        f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"  # noqa: S608
    )
    names = [row[0] for row in tables if row[0] not in (*COMES_AGAIN, *IN_THE_LEDGERS)]
    return {name: [row[1] for row in opened.execute(f'PRAGMA {schema}.table_info("{name}")')] for name in names}


def _has_more(opened: sqlite3.Connection, table: str, ours: list[str], known: list[str]) -> bool:
    names = ", ".join(f'"{name}"' for name in ours if name in known or not known)
    rows = f'SELECT {names} FROM main."{table}"'  # noqa: S608 - names of our own schema
    if known:
        rows += f' EXCEPT SELECT {names} FROM backup."{table}"'  # noqa: S608
    return any(table != "switches" or row[0] not in OF_THE_GATE for row in opened.execute(rows))
