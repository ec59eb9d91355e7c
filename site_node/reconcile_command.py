"""`wardround site reconcile`: after a backup was restored, make up for what the gate's database has forgotten."""

import sqlite3
from dataclasses import dataclass, replace
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
LOST = (
    "SITE/mark, which says how far this hospital had come, is missing or damaged. Nobody can tell whether the "
    "gate's database has forgotten rounds that were answered. These studies cannot go on here; later ones can:"
)
UNPROVEN = (
    "The hub names states of this hospital's ledger without a charge that this hospital signed. If an old backup was "
    "restored, they may be true, and dismissing them hands budget back: first let agent and gate run, and ask the "
    "hub's operator for the charges. If the hub cannot show them, dismiss them: the ledger notes it, and a signed "
    "charge that comes later counts all the same."
)
AWAITS_HUB = (
    "SITE/mark was lost, so only the hub can say what was charged since the backup, and it was not heard yet. Before, "
    "nothing is answered and no study approved. Let gate and agent run: the hub says it when it next asks something, "
    "and the gate goes on by itself. If it names charges that the ledger lacks, call this again."
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
    mark_is_lost: bool = False
    awaits_hub: bool = False

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
        bool, typer.Option("--whole-site", help="The whole folder was restored: give up every study approved here.")
    ] = False,
    dismiss_unproven: Annotated[
        bool,
        typer.Option(
            "--dismiss-unproven", help="Go on though the hub names charges of which it shows none that we signed."
        ),
    ] = False,
) -> None:
    """Show what an old backup of the gate lacks, and make up for it: charges, and studies that were answered since.

    Nobody knows any more which patients a lost charge touched: every patient of this hospital is charged. Nor which
    rounds of a study were answered: no such study goes on here.
    """
    from site_node.governance.high_water import awaits_hub

    with open_site(folder) as (settings, database):
        found = _look(settings, database, whole_site)
        if dismiss_unproven and found.gap.unexplained:
            typer.echo(UNPROVEN, err=True)
            if not yes:
                typer.confirm(f"Dismiss these? {CANNOT_BE_UNDONE}", abort=True, err=True)
            _dismiss(settings, database, found.gap)
            found = _look(settings, database, whole_site)
        gives_up = found.is_behind or whole_site
        if not as_json:
            _show(found, gives_up)
        does = yes or not as_json
        if does and not yes:
            _confirm(found, gives_up)
        lost = _give_up(settings, database, whole_site) if does and gives_up else []
        charged = _charge(settings, database) if does and found.gap else False
        found = replace(found, awaits_hub=awaits_hub(database))
    if as_json:
        print_json(
            {
                "missing": found.missing,
                "unexplained": len(found.gap.unexplained),
                "charged": charged,
                "behind_mark": found.is_behind,
                "answered_studies": found.answered,
                "given_up": lost,
                "awaits_hub": found.awaits_hub,
            }
        )
        return
    _say(found, charged, gives_up)


def _look(settings: SiteSettings, database: sqlite3.Connection, whole_site: bool) -> _Found:
    from protocol.signing import SigningKey
    from site_node.governance import high_water
    from site_node.governance.ledger_heads import gap_of

    key = SigningKey.load_or_create(settings.paths.identity_key).public
    high_water.take_in_charges(settings.paths, database, key, settings.name)
    return _Found(
        gap_of(database, key, settings.name),
        not high_water.fits(settings.paths, database),
        high_water.answered_studies(settings.paths, database, mark_is_old=whole_site),
        high_water.is_lost(settings.paths, database),
    )


def _show(found: _Found, gives_up: bool) -> None:
    for charge in found.missing:
        typer.echo(f"missing: entry {charge['number']}, study {charge['study_digest']}")
    if gives_up:
        why = LOST if found.is_behind and found.mark_is_lost else ANSWERED
        for line in [why, *(f"  study {digest}" for digest in found.answered)]:
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


def _dismiss(settings: SiteSettings, database: sqlite3.Connection, gap: "Gap") -> None:
    from site_node.governance.ledger_heads import dismiss_unproven
    from site_node.sqlite import transaction

    with transaction(database):
        dismiss_unproven(database, gap)


def _give_up(settings: SiteSettings, database: sqlite3.Connection, whole_site: bool) -> list[str]:
    from site_node.governance.high_water import begin_again, give_up
    from site_node.sqlite import transaction

    with transaction(database):
        studies = give_up(settings.paths, database, mark_is_old=whole_site)
    begin_again(settings.paths, database, mark_is_old=whole_site)
    return studies


def _say(found: _Found, charged: bool, gives_up: bool) -> None:
    if charged:
        typer.echo("Charged to every patient. The gate goes on within a second.")
    if found.awaits_hub:
        typer.echo(AWAITS_HUB)
    elif not charged:
        typer.echo("The ledger holds everything that the hub has countersigned.")
    if gives_up:
        typer.echo("The studies are given up here; the gate tells the hub within a second.")
    elif found.answered:
        for line in [OF_A_WHOLE_SITE, *(f"  study {digest}" for digest in found.answered)]:
            typer.echo(line)
