"""The high-water mark: what this gate has let out, noted outside the gate's own folder before it can leave.

    SITE/mark/egress.json        the egress ledger's head, and every study of which a task was ever accepted
    SITE/mark/charges/           the privacy ledger's charges as the hub was told them, one signed envelope each

A restored backup of SITE/gate forgets which rounds it has answered and which masks it has revealed. The mark is not in
that folder, so it stays. A database whose egress ledger does not hold the mark's head is *behind*: it takes no task,
approves no study and ends its masked rounds, until the administrator gives up the studies that the mark names
(`wardround site reconcile`). Which of their rounds were answered nobody knows any more: they never go on at this site.

`begin_again` then begins a *life*: a nonce in the database that a fresh mark names. The same backup restored once more,
or an older one, has not that nonce, and is behind again though its entries fit the mark.

Where the mark was lost, the hub alone knows what was charged since: the gate stays behind until the hub has sent the
site's charges back (`LedgerRecord`), and what was approved since is given up too.

Tables: `given_up` those studies; `lives` each beginning after a restored backup.
"""

import sqlite3
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest, canonical_json, digest_of_bytes, hex_of, parse_json
from protocol.errors import DigestError
from protocol.messages import MAX_RECORD_CHARGES, LedgerRecord, Reason
from protocol.signing import PublicKey
from site_node.durable import finished_files, read_up_to, write_durably
from site_node.errors import GateError
from site_node.governance import hash_chain, ledger_heads, switches
from site_node.governance.context import GateContext, fresh_nonce
from site_node.governance.policy import Objection
from site_node.governance.reasons import sentence_of
from site_node.settings import SitePaths
from site_node.sqlite import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS given_up (study TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS lives (
    number INTEGER PRIMARY KEY AUTOINCREMENT, nonce TEXT NOT NULL, mark_was_lost INTEGER NOT NULL,
    hub_was_heard INTEGER NOT NULL);
"""
MAX_MARK_BYTES = 64 << 20
CHARGE_SUFFIX = ".dsse.json"
PRIVATE = 0o600
GIVEN_UP = "A restored backup has forgotten which of its rounds were answered here, so it cannot go on at this site."
_log = structlog.get_logger()


class Mark(BaseModel):
    """How far the egress ledger had come when something last left, and the studies that were given tasks by then.

    `life` is the nonce of the last beginning. `has_gaps`: in an earlier life a mark was lost, so `studies` lacks some.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.high-water-mark/1"] = Field(default="wardround.high-water-mark/1", alias="schema")
    number: int = Field(ge=0)
    chain: str
    studies: list[Digest] = []
    life: str | None = None
    has_gaps: bool = False


def advance(context: GateContext) -> None:
    """Note all that is recorded and may now leave. Called before a byte of it enters the outbox.

    Guarantee: the mark is on the disk when this returns. A gate that is behind its mark leaves the mark as it is.
    """
    paths, database = context.paths, context.database
    if not fits(paths, database):
        return
    _keep_charges(paths, database)
    _write(paths, database)
    if not switches.is_on(database, "marked"):
        with transaction(database):
            switches.turn(database, "marked", on=True)


def is_behind(paths: SitePaths, database: sqlite3.Connection) -> bool:
    """Tell whether more has left this site than its database knows of, or may have and the hub was not heard yet."""
    return not fits(paths, database) or awaits_hub(database)


def fits(paths: SitePaths, database: sqlite3.Connection) -> bool:
    """Tell whether the database holds what the mark says.

    A mark that is gone or damaged, where there was one, could have said more: then it does not.
    """
    data = read_up_to(paths.mark_of_egress, MAX_MARK_BYTES)
    if data is None and not switches.is_on(database, "marked"):
        return True
    known = _parsed(data)
    return known is not None and known.life == _life(database) and _chain_at(database, known.number) == known.chain


def is_lost(paths: SitePaths, database: sqlite3.Connection) -> bool:
    """Tell whether no mark says what this database lacks: none that can be read, or that of a life after a lost one."""
    known = _parsed(read_up_to(paths.mark_of_egress, MAX_MARK_BYTES))
    return known is None or (known.has_gaps and known.life != _life(database))


def awaits_hub(database: sqlite3.Connection) -> bool:
    """Tell whether a lost mark was dealt with, but the hub has not sent this site's charges since."""
    row = _last_life(database)
    return row is not None and bool(row["mark_was_lost"]) and not row["hub_was_heard"]


def hear(context: GateContext, record: LedgerRecord) -> str:
    """Keep the charges that the hub has sent. After a lost mark they say what was approved since, and is given up.

    Call within a transaction. The hub ends its record with a message that could have held more.
    """
    paths, database = context.paths, context.database
    if record.site != context.settings.name:
        return "refused"
    outcome = ledger_heads.keep_record(context, record)
    begun, life = fits(paths, database), _last_life(database)
    was_lost = (life is not None and bool(life["mark_was_lost"])) if begun else is_lost(paths, database)
    if outcome == "refused" or not was_lost:
        return outcome
    missing = ledger_heads.gap_of(database, context.key.public, context.settings.name).charges
    database.executemany("INSERT OR IGNORE INTO given_up VALUES (?)", [(charge.study_digest,) for charge in missing])
    if len(record.charges) < MAX_RECORD_CHARGES:
        if begun:
            database.execute("UPDATE lives SET hub_was_heard = 1 WHERE number = (SELECT MAX(number) FROM lives)")
        else:
            switches.turn(database, "hub heard", on=True)
    return outcome


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
    since: it counts as answered. One that was approved later is given up once the hub has named its charge (`hear`).
    """
    ended = {row["digest"] for row in database.execute("SELECT digest FROM studies WHERE state = 'closed'")}
    found = _answered(paths, database)
    if mark_is_old or is_lost(paths, database):
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


def begin_again(paths: SitePaths, database: sqlite3.Connection, *, mark_is_old: bool = False) -> None:
    """Begin a new life, with a fresh mark where the database stands, once what was answered is given up and committed.

    Guarantee: a crash before its end leaves the gate behind its mark, and `reconcile` is called again.
    """
    with transaction(database):
        if mark_is_old or not fits(paths, database):
            lost, heard = mark_is_old or is_lost(paths, database), switches.is_on(database, "hub heard")
            database.execute(
                "INSERT INTO lives (nonce, mark_was_lost, hub_was_heard) VALUES (?, ?, ?)", (fresh_nonce(), lost, heard)
            )
            switches.forget(database, "hub heard")
            switches.turn(database, "marked", on=True)
            _keep_charges(paths, database)
            _write(paths, database)


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
    mark = Mark(
        number=number,
        chain=chain,
        studies=sorted(_answered(paths, database) | given_up(database)),
        life=_life(database),
        has_gaps=database.execute("SELECT 1 FROM lives WHERE mark_was_lost").fetchone() is not None,
    )
    write_durably(paths.mark_of_egress, canonical_json(mark.model_dump(mode="json", by_alias=True)), PRIVATE)


def _keep_charges(paths: SitePaths, database: sqlite3.Connection) -> None:
    paths.mark_of_charges.mkdir(parents=True, exist_ok=True)
    rows = database.execute(  # our own, and what the hub has sent back of a life that was forgotten
        "SELECT envelope FROM told_heads JOIN envelopes ON envelopes.number = told_heads.egress "
        "UNION SELECT envelope FROM hub_charges"
    )
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


def _last_life(database: sqlite3.Connection) -> sqlite3.Row | None:
    row: sqlite3.Row | None = database.execute("SELECT * FROM lives ORDER BY number DESC LIMIT 1").fetchone()
    return row


def _life(database: sqlite3.Connection) -> str | None:
    row = _last_life(database)
    return None if row is None else str(row["nonce"])
