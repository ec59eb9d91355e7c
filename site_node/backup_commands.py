"""`wardround site backup` and `wardround site restore`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_node.command_line import Folder, Json, print_json, told
from site_node.errors import BackupError
from site_node.settings import SitePaths, load_settings

if TYPE_CHECKING:
    from site_node.backup.inventory import Inventory
    from site_node.backup.sealed_file import Secret

KeyFile = Annotated[
    Path | None, typer.Option(help="Lock with a file of 32 random bytes or more, in place of a passphrase.")
]
Passphrase = Annotated[
    str | None,
    typer.Option(
        envvar="WARDROUND_BACKUP_PASSPHRASE",
        help="Asked for if not given; in a script use the variable, because others see command lines.",
        show_default=False,
    ),
]


DECIDE_AGAIN = (
    "What was decided here after {} is not in it: withdrawals, opt-outs, exclusions, a stricter policy. "
    "Decide it again before you start the gate."
)


@told
def backup(
    folder: Folder,
    target: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A new file, or a folder for one.")],
    key_file: KeyFile = None,
    passphrase: Passphrase = None,
    local_state: Annotated[
        bool, typer.Option("--local-state", help="Also personal models and what else stays here between rounds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Back up keys, ledgers, index, pseudonym key, frozen cohorts and records into one encrypted file.

    The site may run. Run it as root: no single process of the site may read all of it. Keep the file on another machine
    and its passphrase on paper; without it nobody can read it. SITE/mark and images are not in it.
    """
    from site_node.backup.writing import write_backup

    settings = load_settings(folder)
    secret = _secret(key_file, passphrase, confirm=True)
    with _progress("Backing up") as told_of:
        written = write_backup(settings, target, secret, local_state=local_state, told=told_of)
    _report(written.inventory, written.path, as_json=as_json, done="written and read back")


@told
def restore(
    folder: Folder,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `wardround site backup` wrote.")],
    key_file: KeyFile = None,
    passphrase: Passphrase = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a state that is newer than the backup.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only read the backup through and say what it holds.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a site back from a backup, into its folder or a new one. End gate, worker and agent first.

    No budget comes back with it: if anything left since, the site answers nothing until `wardround site reconcile`.
    """
    from site_node.backup.reading import read_backup
    from site_node.backup.restoring import restore as put_back
    from site_node.doctor.registration import is_running

    if not source.is_file():
        raise BackupError(f"There is no file {source}.", "Name a file that `wardround site backup` wrote.")
    if not check and is_running(SitePaths(folder.resolve()).gate / "lock"):
        raise BackupError("The site's gate is running.", "End gate, worker and agent first.")
    secret = _secret(key_file, passphrase, confirm=False)
    if check:
        with _progress("Reading"), source.open("rb") as file:
            inventory = read_backup(file, secret)
        _report(inventory, source, as_json=as_json, done="whole")
        return
    with _progress("Restoring") as told_of:
        restored = put_back(folder, source, secret, force=force, told=told_of)
    told_besides = {"kept": restored.kept, "rewritten": restored.rewritten, "undone": restored.undone}
    _report(restored.inventory, source, as_json=as_json, done="restored", **told_besides)
    if not as_json:
        for name in restored.kept:
            typer.echo(f"Left as it was, because it may hold what came later: {name}")
        for name in restored.rewritten:
            typer.echo(f"Replaced, though it was another: {name}")
        if restored.undone is not None:
            typer.echo(f"Undone. {restored.undone}")
        if restored.undone is not None or not restored.replaced:
            typer.echo(DECIDE_AGAIN.format(restored.inventory.made_at))
        typer.echo("Next: check owners (docs/site_operations.md), start the gate, and see `wardround site reconcile`.")


def _secret(key_file: Path | None, passphrase: str | None, *, confirm: bool) -> "Secret":
    from site_node.backup.sealed_file import Secret

    if key_file is not None:
        return Secret.from_file(key_file)
    text = passphrase or typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return Secret.from_passphrase(text)


@contextmanager
def _progress(doing: str) -> Iterator[Callable[[str], None]]:
    """Say on the terminal what is done; the yielded function adds what is being read or written."""
    from rich.console import Console

    with Console(stderr=True).status(f"{doing}…") as shown:
        yield lambda what: shown.update(f"{doing}: {what}")


def _report(inventory: "Inventory", path: Path, *, as_json: bool, done: str, **besides: object) -> None:
    size = sum(entry.bytes for entry in inventory.files)
    if as_json:
        names = [entry.name for entry in inventory.files]
        heads = {"ledger": inventory.ledger.number, "egress": inventory.egress.number}
        print_json(
            {
                "file": str(path),
                "site": inventory.site,
                "made_at": inventory.made_at,
                **heads,
                "files": names,
                **besides,
            }
        )
        return
    typer.echo(f"{path} is {done}: {inventory.site} as of {inventory.made_at}, {len(inventory.files)} files, {size} B.")
    typer.echo(f"Privacy ledger at entry {inventory.ledger.number}, egress ledger at {inventory.egress.number}.")
