"""`wardround site reconcile`: after a backup was restored, make up for what the gate's database has forgotten."""

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from site_node.command_line import Folder, Json, open_site, print_json, told
from site_node.settings import SiteSettings

if TYPE_CHECKING:
    from site_node.governance.ledger_heads import Gap

CHARGE = "Charge this to every patient of the hospital?"
GIVE_UP = "Give these studies up at this hospital?"
CANNOT_BE_UNDONE = "It cannot be undone."
ANSWERED = (
    "The gate's database is older than what has left this hospital: it has forgotten rounds that were answered. "
    "These studies cannot go on here; later ones can:"
)
OF_A_WHOLE_SITE = (
    "Was the whole folder of the site restored? Then the mark of what has left went back with it, and nothing here can "
    "tell. Give up the studies that were answered, with `wardround site reconcile DIR --whole-site`:"
)


@dataclass(frozen=True)
class _Found:
    """What a restored database lacks: charges of the ledger, and studies that were answered since."""

    gap: "Gap"
    is_behind: bool
    answered: list[str]

    @property
    def missing(self) -> list[dict[str, Any]]:
        return [
            {"study_digest": c.study_digest, "number": c.number, "chain": c.chain, "unprotected": c.unprotected}
            for c in self.gap.charges
        ]


@told
def reconcile(
    folder: Folder,
    as_json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make up for everything without asking.")] = False,
    whole_site: Annotated[
        bool, typer.Option("--whole-site", help="The whole folder was restored: give up every study answered here.")
    ] = False,
) -> None:
    """Show what an old backup of the gate lacks, and make up for it: charges, and studies that were answered since.

    Nobody knows any more which patients a lost charge touched: every patient of this hospital is charged. Nor which
    rounds of a study were answered: no such study goes on here.
    """
    with open_site(folder) as (settings, database):
        found = _look(settings, database)
        gives_up = found.is_behind or whole_site
        if not as_json:
            _show(found, gives_up)
        does = yes or not as_json
        if does and not yes:
            _confirm(found, gives_up)
        lost = _give_up(settings, database) if does and gives_up else []
        charged = _charge(settings, database) if does and found.gap else False
    if as_json:
        print_json(
            {
                "missing": found.missing,
                "unexplained": len(found.gap.unexplained),
                "charged": charged,
                "behind_mark": found.is_behind,
                "answered_studies": found.answered,
                "given_up": lost,
            }
        )
        return
    _say(found, charged, gives_up)


def _look(settings: SiteSettings, database: sqlite3.Connection) -> _Found:
    from protocol.signing import SigningKey
    from site_node.governance import high_water
    from site_node.governance.ledger_heads import gap_of

    key = SigningKey.load_or_create(settings.paths.identity_key).public
    high_water.take_in_charges(settings.paths, database, key, settings.name)
    return _Found(
        gap_of(database, key, settings.name),
        high_water.is_behind(settings.paths, database),
        high_water.answered_studies(settings.paths, database),
    )


def _show(found: _Found, gives_up: bool) -> None:
    for charge in found.missing:
        typer.echo(f"missing: entry {charge['number']}, study {charge['study_digest']}")
    if gives_up:
        for line in [ANSWERED, *(f"  study {digest}" for digest in found.answered)]:
            typer.echo(line)


def _confirm(found: _Found, gives_up: bool) -> None:
    if found.gap and not found.gap.unexplained:
        typer.confirm(f"{CHARGE} {CANNOT_BE_UNDONE}", abort=True)
    if gives_up:
        typer.confirm(f"{GIVE_UP} {CANNOT_BE_UNDONE}", abort=True)


def _charge(settings: SiteSettings, database: sqlite3.Connection) -> bool:
    from protocol.signing import SigningKey
    from site_node.governance.ledger_heads import charge_gap, gap_of
    from site_node.sqlite import transaction

    key = SigningKey.load_or_create(settings.paths.identity_key).public
    with transaction(database):
        charge_gap(database, gap_of(database, key, settings.name))
    return True


def _give_up(settings: SiteSettings, database: sqlite3.Connection) -> list[str]:
    from site_node.governance.high_water import give_up
    from site_node.sqlite import transaction

    with transaction(database):
        return give_up(settings.paths, database)


def _say(found: _Found, charged: bool, gives_up: bool) -> None:
    if charged:
        typer.echo("Charged to every patient. The gate goes on within a second.")
    else:
        typer.echo("The ledger holds everything that the hub has countersigned.")
    if gives_up:
        typer.echo("The studies are given up here; the gate tells the hub within a second.")
    elif found.answered:
        for line in [OF_A_WHOLE_SITE, *(f"  study {digest}" for digest in found.answered)]:
            typer.echo(line)
