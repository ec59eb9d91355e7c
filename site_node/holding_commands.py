"""`wardround site pause`, `drain` and `resume`: let a hospital's node rest, at once or when its work is done."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_node.command_line import Folder, open_site, told
from site_node.errors import GateError

if TYPE_CHECKING:
    import sqlite3

    from site_node.governance.holding import Remaining

LOOK_SECONDS = 0.5
NO_GATE = "No gate is running, so nothing that was begun can end."


@told
def pause(folder: Folder) -> None:
    """Pause the site: running jobs stop, no study and no task is decided, and the outbox is held back.

    Only what the agent is sending at this moment may still go. `resume` lets it all go on: a training that was stopped
    is done again to the same bytes, and no privacy is spent twice. To let running jobs end first: `drain`.
    """
    from site_node.governance.records import set_paused

    with open_site(folder) as (_, database):
        set_paused(database, True)
    typer.echo("Paused. Continue with `wardround site resume`.")


@told
def drain(
    folder: Folder,
    wait: Annotated[bool, typer.Option(help="Wait until all that was begun has ended and left.")] = True,
    timeout_minutes: Annotated[
        float | None, typer.Option(min=0, help="Wait no longer; the site stays drained all the same.")
    ] = None,
) -> None:
    """Let nothing new begin, finish what was begun and let it leave: before maintenance, an upgrade, a reboot.

    The site stays so until `resume`. Exit status: 0 once the site is idle, or with --no-wait; 1 if the time ran out.
    """
    from site_node.governance.holding import drain

    with open_site(folder) as (settings, database):
        drain(database)
        if wait:
            _wait_until_idle(database, settings.paths.gate / "lock", timeout_minutes)
    typer.echo("Idle: nothing is under way. " * wait + "Nothing new begins. Continue with `wardround site resume`.")


@told
def resume(folder: Folder) -> None:
    """Let a paused or drained site go on."""
    from site_node.governance.holding import resume

    with open_site(folder) as (_, database):
        resume(database)
    typer.echo("The site goes on.")


def _wait_until_idle(database: "sqlite3.Connection", lock: Path, timeout_minutes: float | None) -> None:
    from rich.console import Console

    from site_node.doctor.registration import is_running
    from site_node.governance.holding import remaining

    until = None if timeout_minutes is None else time.monotonic() + 60 * timeout_minutes
    with Console(stderr=True).status("Draining…") as shown:
        while left := remaining(database):
            said = _said(left)
            shown.update(f"Draining: {said} to go…")
            if not is_running(lock):
                raise GateError(f"{NO_GATE} To go: {said}.", "Start it: `wardround site gate DIR`, and the others.")
            if until is not None and time.monotonic() >= until:
                raise GateError(f"The site is not idle yet. To go: {said}.", "It stays drained; call `drain` again.")
            time.sleep(LOOK_SECONDS)


def _said(left: "Remaining") -> str:
    named = ((left.tasks, "task"), (left.masked_rounds, "masked round"), (left.messages, "message"))
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in named if count)
