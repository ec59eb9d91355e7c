"""The high-water mark: what this gate has let out, noted outside the gate's own folder before it can leave.

    SITE/mark/egress.json        the egress ledger's head, and every study of which a task was ever accepted
    SITE/mark/charges/           the privacy ledger's charges as the hub was told them, one signed envelope each

A restored backup of SITE/gate forgets which rounds it has answered and which masks it has revealed. The mark is not in
that folder, so it stays. A database whose egress ledger does not hold the mark's head is *behind*: it takes no task,
approves no study and ends its masked rounds, until the administrator gives up the studies that the mark names
(`wardround site reconcile`). Which of their rounds were answered nobody knows any more: they never go on at this site.

Table: `given_up` those studies. `begin_again` then writes a fresh mark: nothing in the database, which travels in
backups, says that a missing or damaged mark was dealt with.
"""

import sqlite3
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest, canonical_json, digest_of_bytes, hex_of, parse_json
from protocol.errors import DigestError
from protocol.messages import Reason
from protocol.signing import PublicKey
from site_node.durable import finished_files, read_up_to, write_durably
from site_node.errors import GateError
from site_node.governance import hash_chain, ledger_heads
from site_node.governance.context import GateContext
from site_node.governance.policy import Objection
from site_node.governance.reasons import sentence_of
from site_node.settings import SitePaths
from site_node.sqlite import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS given_up (study TEXT PRIMARY KEY);
"""
MAX_MARK_BYTES = 64 << 20
CHARGE_SUFFIX = ".dsse.json"
PRIVATE = 0o600
GIVEN_UP = "A restored backup has forgotten which of its rounds were answered here, so it cannot go on at this site."
_log = structlog.get_logger()


class Mark(BaseModel):
    """How far the egress ledger had come when something last left, and the studies that were given tasks by then."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.high-water-mark/1"] = Field(default="wardround.high-water-mark/1", alias="schema")
    number: int = Field(ge=0)
    chain: str
    studies: list[Digest] = []


def advance(context: GateContext) -> None:
    """Note all that is recorded and may now leave. Called before a byte of it enters the outbox.

    Guarantee: the mark is on the disk when this returns. A gate that is behind its mark leaves the mark as it is.
    """
    paths, database = context.paths, context.database
    if is_behind(paths, database):
        return
    _keep_charges(paths, database)
    _write(paths, database)
    if not _has_marked(database):
        with transaction(database):
            database.execute("INSERT OR REPLACE INTO switches (name, value) VALUES ('marked', 1)")


def is_behind(paths: SitePaths, database: sqlite3.Connection) -> bool:
    """Tell whether more has left this site than its database knows of.

    A mark that is gone or damaged, where there was one, could have said so: then the answer is yes.
    """
    data = read_up_to(paths.mark_of_egress, MAX_MARK_BYTES)
    if data is None and not _has_marked(database):
        return False
    known = _parsed(data)
    return known is None or _chain_at(database, known.number) != known.chain


def is_lost(paths: SitePaths) -> bool:
    """Tell whether there is no mark that can be read: then nobody knows whether the database is older or whole."""
    return _parsed(read_up_to(paths.mark_of_egress, MAX_MARK_BYTES)) is None


def objection_to(context: GateContext, study: str) -> Objection | None:
    """Return why nothing more may leave for a study, or None. The gate is behind its mark, or the study given up."""
    if is_behind(context.paths, context.database):
        return Objection(Reason.LEDGER_BEHIND, sentence_of(Reason.LEDGER_BEHIND))
    if study in given_up(context.database):
        return Objection(Reason.APPROVAL_WITHDRAWN, GIVEN_UP)
    return None


def given_up(database: sqlite3.Connection) -> set[str]:
    """Return the studies that were given up after a backup was restored."""
    return {row["study"] for row in database.execute("SELECT study FROM given_up")}


def answered_studies(paths: SitePaths, database: sqlite3.Connection, *, mark_is_old: bool = False) -> list[str]:
    """Return the studies of which a task was ever accepted, as mark and database tell, and that could still go on.

    Where the mark is lost, or went back with the database, a study that was approved by then may have been answered
    since: it counts as answered. One that was approved later is in no record here, and is charged anew if it comes.
    """
    ended = {row["digest"] for row in database.execute("SELECT digest FROM studies WHERE state = 'closed'")}
    found = _answered(paths, database)
    if mark_is_old or is_lost(paths):
        approved = database.execute("SELECT digest FROM studies WHERE state IN ('approved', 'withdrawn')")
        found |= {row["digest"] for row in approved}
    return sorted(found - ended - given_up(database))


def give_up(paths: SitePaths, database: sqlite3.Connection, *, mark_is_old: bool = False) -> list[str]:
    """Give up every study that was answered, so that the gate may go on with others. Call within a transaction.

    Returns: the studies that were given up by this call.
    """
    studies = answered_studies(paths, database, mark_is_old=mark_is_old)
    database.executemany("INSERT OR IGNORE INTO given_up VALUES (?)", [(study,) for study in studies])
    return studies


def begin_again(paths: SitePaths, database: sqlite3.Connection) -> None:
    """Write a fresh mark where the database stands, once what was answered is given up and that is committed.

    Guarantee: a crash before it leaves the gate behind its mark, and `reconcile` is called again.
    """
    with transaction(database):
        if is_behind(paths, database):
            _write(paths, database)
            database.execute("INSERT OR REPLACE INTO switches (name, value) VALUES ('marked', 1)")


def take_in_charges(paths: SitePaths, database: sqlite3.Connection, key: PublicKey, site: str) -> None:
    """Take in the charges that lie beside the mark, so that what a restored ledger lacks is known without the hub."""
    if not is_behind(paths, database):
        return
    for path in finished_files(paths.mark_of_charges, CHARGE_SUFFIX):
        try:
            with transaction(database):
                ledger_heads.keep_charge(database, path.read_bytes(), key, site)
        except GateError as error:
            _log.error("marked_charge_refused", why=str(error))


def _write(paths: SitePaths, database: sqlite3.Connection) -> None:
    number, chain = hash_chain.head(database, "egress")
    mark = Mark(number=number, chain=chain, studies=sorted(_answered(paths, database) | given_up(database)))
    write_durably(paths.mark_of_egress, canonical_json(mark.model_dump(mode="json", by_alias=True)), PRIVATE)


def _keep_charges(paths: SitePaths, database: sqlite3.Connection) -> None:
    paths.mark_of_charges.mkdir(parents=True, exist_ok=True)
    rows = database.execute("SELECT envelope FROM told_heads JOIN envelopes ON envelopes.number = told_heads.egress")
    for row in rows.fetchall():
        path = paths.mark_of_charges / (hex_of(digest_of_bytes(row["envelope"])) + CHARGE_SUFFIX)
        if not path.exists():
            write_durably(path, row["envelope"], PRIVATE)


def _answered(paths: SitePaths, database: sqlite3.Connection) -> set[str]:
    known = _parsed(read_up_to(paths.mark_of_egress, MAX_MARK_BYTES))
    return {row["study"] for row in database.execute("SELECT DISTINCT study FROM inputs")} | set(
        known.studies if known else ()
    )


def _parsed(data: bytes | None) -> Mark | None:
    try:
        return None if data is None else Mark.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        return None


def _chain_at(database: sqlite3.Connection, number: int) -> str:
    row = database.execute("SELECT chain FROM egress WHERE number = ?", (number,)).fetchone()
    return hash_chain.EMPTY_HEAD if row is None and number == 0 else "" if row is None else str(row["chain"])


def _has_marked(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM switches WHERE name = 'marked'").fetchone() is not None
