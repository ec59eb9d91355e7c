"""The gate's switches, kept in its database: what the administrator has set, and what the gate notes about its mark.

    paused, draining     set by a person (`holding.py`)
    marked, hub heard    the gate's own (`high_water.py`)

`marked`: there was a mark once. `hub heard`: before a lost mark is dealt with, the hub has sent the site's charges.
"""

import sqlite3
from typing import Literal

Switch = Literal["paused", "draining", "marked", "hub heard"]
OF_THE_GATE: tuple[Switch, ...] = ("marked", "hub heard")
SCHEMA = "CREATE TABLE IF NOT EXISTS switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL);\n"


def is_on(database: sqlite3.Connection, name: Switch) -> bool:
    """Tell whether a switch is on; one that was never set is off."""
    row = database.execute("SELECT value FROM switches WHERE name = ?", (name,)).fetchone()
    return row is not None and bool(row[0])


def turn(database: sqlite3.Connection, name: Switch, *, on: bool) -> None:
    """Turn a switch on or off."""
    database.execute("INSERT OR REPLACE INTO switches (name, value) VALUES (?, ?)", (name, int(on)))


def forget(database: sqlite3.Connection, name: Switch) -> None:
    """Make a switch one that was never set."""
    database.execute("DELETE FROM switches WHERE name = ?", (name,))
