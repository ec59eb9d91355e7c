"""What the commands of `wardround site` share: their arguments, their one clear message, and how a process begins."""

import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from protocol.errors import ProtocolError
from site_node.errors import SettingsError, SiteError
from site_node.settings import SiteSettings, load_settings

if TYPE_CHECKING:
    import sqlite3

P = ParamSpec("P")
UMASK = 0o027  # what a site writes, its group may read and nobody else
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's directory, as made by `wardround site init`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]


def told(command: Callable[P, None]) -> Callable[P, None]:
    """End a command with one clear message where something expected went wrong."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        os.umask(UMASK)
        try:
            command(*args, **kwargs)
        except (SiteError, ProtocolError) as error:
            typer.echo(f"{error}", err=True)
            raise typer.Exit(1) from None
        except PermissionError as error:
            typer.echo(
                f"{error.filename} is not this user's: {error.strerror}. Run the command as its owner.", err=True
            )
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None:  # no path that was named: a pipe that closed, a fault of ours
                raise
            typer.echo(_unusable(error), err=True)
            raise typer.Exit(1) from None

    return wrapped


def _unusable(error: OSError) -> str:
    path = Path(os.fsdecode(error.filename))
    named = path.parent if path.name.startswith(".") else path  # what is written first has a hidden name of ours
    return f"{named} cannot be used: {(error.strerror or 'input error').lower()}. Name another place."


@contextmanager
def open_site(folder: Path) -> Iterator[tuple[SiteSettings, "sqlite3.Connection"]]:
    """Open a site's settings and the gate's records."""
    from site_node.governance.records import open_records

    settings = load_settings(folder)
    database = open_records(settings.paths)
    try:
        yield settings, database
    finally:
        database.close()


def study_beginning(database: "sqlite3.Connection", digest: str) -> str:
    """Return the one study whose digest begins so.

    Raises: SettingsError if there is none, or several.
    """
    from site_node.governance.records import study_records

    known = [record.digest for record in study_records(database)]
    found = [d for d in known if d.startswith(digest) or d.removeprefix("sha256:").startswith(digest)]
    if len(found) != 1:
        problem = "No study's digest begins" if not found else "Several studies' digests begin"
        raise SettingsError(f"{problem} with {digest[:80]!r}.", "See `wardround site studies DIR`.")
    return found[0]


def begin_process(folder: Path) -> SiteSettings:
    """Set up the log of a process that stays up, and read its settings."""
    from site_node.logs import configure_logs

    configure_logs()
    return load_settings(folder)


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
