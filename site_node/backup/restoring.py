"""Bringing a site back from a backup, and why no privacy budget comes back with it.

A restored gate knows less than what has left since. `SITE/mark` is not part of a backup: where it stayed, the gate is
behind it; where it was lost too, the restored database says that there was one (`marked`), and a missing mark counts as
one that is ahead. Either way nothing is answered until `wardround site reconcile`. A backup after which nothing left
fits its mark, and the site goes on. What the hub has countersigned is compared besides (`ledger_heads.py`).

Nor is a decision undone unseen: what the state that is there has recorded besides is compared table by table
(`later_records.py`), and settings, policy, opt-outs and what readers did that are there stay.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from site_node.backup.contents import DATABASE, OPT_OUTS, READING, SETTINGS
from site_node.backup.inventory import Head, Inventory, chain_at, heads_of
from site_node.backup.later_records import later_records
from site_node.backup.reading import PIECE_BYTES, read_backup
from site_node.backup.sealed_file import Secret
from site_node.durable import remove, sync_folder
from site_node.enrolment import SHARED, make_folders
from site_node.errors import BackupError
from site_node.governance import switches
from site_node.settings import SitePaths

STAGING = ".restore"
MADE_AGAIN = ("orders", "verdicts", "outbox", "receipts")
"""Written anew from the gate's database; what lies there belongs to the state that is replaced."""
SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Standing:
    """How far the state that is there has come, beside a backup's."""

    ledger: Head
    egress: Head
    ledger_then: str | None
    egress_then: str | None
    """The chains of the state that is there, after as many entries as the backup has; None: it has fewer."""
    later: tuple[str, ...] = ()
    """What it has recorded since besides, in words."""


@dataclass(frozen=True)
class Restored:
    """What was brought back; `kept` are files that were left as they were, `rewritten` settings that were others.

    `undone` says what the state that was replaced had beyond the backup.
    """

    inventory: Inventory
    kept: tuple[str, ...]
    replaced: bool
    rewritten: tuple[str, ...] = ()
    undone: str | None = None


def objection_to(inventory: Inventory, standing: Standing | None) -> str | None:
    """Say what would be lost if a backup replaced the state that is there, or None. Pure."""
    if standing is None:
        return None
    same = standing.ledger_then == inventory.ledger.chain and standing.egress_then == inventory.egress.chain
    if not same:
        return "What is there is no later state of this backup: its ledgers are others."
    newer = standing.egress.number - inventory.egress.number, standing.ledger.number - inventory.ledger.number
    if any(newer):
        return f"What is there is newer: {newer[0]} more messages left and {newer[1]} more ledger entries."
    if standing.later:
        return f"What is there is newer: it has recorded since: {', '.join(standing.later)}."
    return None


def restore(
    root: Path, backup: Path, secret: Secret, *, force: bool, told: Callable[[str], object] = lambda _: None
) -> Restored:
    """Bring a site back into its folder, or into a new one. No process of the site may run.

    Guarantee: everything is unpacked beside, and compared with its inventory, before a file of the site is touched; the
        gate's database is replaced first, so that a crash leaves a gate that is behind, never one that is ahead. An
        opt-out that was recorded since is not forgotten: that file is replaced only if it is missing, and so are the
        reading rooms with their records, as a whole; what the administrator wrote also if `force` is said.
    Raises: BackupError if the backup is damaged, of another site, or older than what is there and `force` is not said.
    """
    paths = SitePaths(root.resolve())
    if not paths.root.exists():
        paths.root.mkdir(parents=True)
        paths.root.chmod(SHARED)
    staging = paths.root / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        with backup.open("rb") as file:
            inventory = _unpack(file, secret, staging, told)
        undone = _check(paths, staging, inventory, force=force)
        _mark_as_restored(staging / DATABASE)
        told("putting it into its place")
        replaced = paths.gate_database.exists()
        others = tuple(name for name in SETTINGS if _is_another(staging / name, paths.root / name))
        kept = _put_in_place(paths, staging, inventory, others=() if force else others)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(inventory, kept, replaced, others if force else (), undone)


def _unpack(file: BinaryIO, secret: Secret, staging: Path, told: Callable[[str], object]) -> Inventory:
    def keep(name: str, mode: int, read: Callable[[int], bytes]) -> None:
        told(name)
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            while data := read(PIECE_BYTES):
                target.write(data)
            target.flush()
            os.fsync(target.fileno())
        path.chmod(mode)

    return read_backup(file, secret, keep)


def _is_another(backed_up: Path, there: Path) -> bool:
    return backed_up.exists() and there.exists() and backed_up.read_bytes() != there.read_bytes()


def _check(paths: SitePaths, staging: Path, inventory: Inventory, *, force: bool) -> str | None:
    """Check that the backup may replace what is there, and return what that undoes."""
    if (staging / DATABASE).exists() and heads_of(staging / DATABASE) != (inventory.ledger, inventory.egress):
        raise BackupError("The ledgers in the backup are not those that its inventory names.", "Take another copy.")
    ours, theirs = paths.identity_key, staging / "gate" / paths.identity_key.name
    if ours.exists() and (not theirs.exists() or ours.read_bytes() != theirs.read_bytes()):
        remedy = "Name a new folder. A site is the one whose key it holds; --force does not change that."
        raise BackupError("The folder is another site's: its key is not the one in the backup.", remedy)
    if not paths.gate_database.exists():
        return None
    try:
        objection = objection_to(inventory, _standing(paths.gate_database, staging / DATABASE, inventory))
    except BackupError:
        if not force:
            raise
        return "What is there cannot be read; nobody knows what it had recorded."
    if objection is not None and not force:
        remedy = "With --force it is replaced all the same. Then decide again what was decided since, and "
        raise BackupError(objection, f"{remedy}`wardround site reconcile` makes up for charges and rounds.")
    return objection


def _standing(database: Path, backup: Path, inventory: Inventory) -> Standing:
    ledger, egress = heads_of(database)
    return Standing(
        ledger,
        egress,
        chain_at(database, "ledger", inventory.ledger.number),
        chain_at(database, "egress", inventory.egress.number),
        later_records(database, backup) if backup.exists() else (),
    )


def _mark_as_restored(database: Path) -> None:
    """Note that there was a mark, so that a missing one counts as one that is ahead; the hub was not heard since."""
    if database.exists():
        with closing(sqlite3.connect(database, isolation_level=None)) as opened:
            switches.turn(opened, "marked", on=True)
            switches.forget(opened, "hub heard")


def _put_in_place(paths: SitePaths, staging: Path, inventory: Inventory, *, others: tuple[str, ...]) -> tuple[str, ...]:
    make_folders(paths)
    for name in MADE_AGAIN:
        for path in (paths.root / name).iterdir():
            remove(path)
    names = sorted((entry.name for entry in inventory.files), key=lambda name: name != DATABASE)
    stays = {*others, *(place for place in (OPT_OUTS, READING) if _holds_files(paths.root / place))}
    kept = tuple(name for name in names if any(name == place or name.startswith(f"{place}/") for place in stays))
    for name in names:
        if name not in kept:
            _replace(staging / name, paths.root / name)
    return kept


def _holds_files(path: Path) -> bool:
    return path.is_file() or any(found.is_file() for found in path.rglob("*"))


def _replace(source: Path, target: Path) -> None:
    _make_as_its_parent(target.parent)
    for end in SIDE_FILES:  # they belong to the database that goes away
        target.with_name(target.name + end).unlink(missing_ok=True)
    _give_to_owner_of(target.parent, source)
    source.replace(target)
    sync_folder(target.parent)


def _make_as_its_parent(folder: Path) -> None:
    if not folder.is_dir():
        _make_as_its_parent(folder.parent)
        folder.mkdir()
        folder.chmod(stat.S_IMODE(folder.parent.stat().st_mode))
        _give_to_owner_of(folder.parent, folder)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
