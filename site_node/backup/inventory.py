"""What stands at the end of each backup: every file with its digest, and how far the two ledgers had come."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import Digest
from protocol.study_parts import Name
from site_node.errors import BackupError
from site_node.governance import hash_chain

NAME = "inventory.json"
MAX_BYTES = 256 << 20


class Head(BaseModel):
    """How many entries a ledger has, and the chain's hash over them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(default=0, ge=0)
    chain: str = hash_chain.EMPTY_HEAD


class Entry(BaseModel):
    """One file of the backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int = Field(ge=0)
    digest: Digest
    mode: int = Field(ge=0, le=0o777)


class Inventory(BaseModel):
    """What a backup holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["wardround.site-backup/1"] = Field(default="wardround.site-backup/1", alias="schema")
    site: Name
    made_at: str
    ledger: Head = Head()
    egress: Head = Head()
    files: list[Entry] = []


def heads_of(database: Path) -> tuple[Head, Head]:
    """Return how far the privacy ledger and the egress ledger of a gate's database have come.

    Raises: BackupError if an entry was changed, or it is no such database.
    """
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            opened.row_factory = sqlite3.Row
            found = [hash_chain.verify(opened, table) for table in ("ledger", "egress")]
    except sqlite3.Error as error:
        raise BackupError(
            f"The gate's database cannot be read ({type(error).__name__}).", "Is it whole? See the gate's log."
        ) from None
    ledger, egress = (Head(number=number, chain=chain) for number, chain in found)
    return ledger, egress


def chain_at(database: Path, table: Literal["ledger", "egress"], number: int) -> str | None:
    """Return the chain's hash after so many entries of a ledger; None if it has fewer."""
    if number == 0:
        return hash_chain.EMPTY_HEAD
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
        row = opened.execute(f"SELECT chain FROM {table} WHERE number = ?", (number,)).fetchone()  # noqa: S608
    return None if row is None else str(row[0])
