"""A site that tests back up and bring back, with a key file in place of a passphrase."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from protocol.messages import Reason, TaskRefusal
from site_node.backup import writing
from site_node.backup.inventory import Inventory
from site_node.backup.restoring import restore
from site_node.backup.sealed_file import Secret
from site_node.cli import app
from site_node.settings import load_settings
from tests.fakes.gated_site import GatedSite, study_of

KEY = Secret("file", b"k" * 32)


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def back_up(site: GatedSite, target: Path, **options: Any) -> Inventory:
    return writing.write_backup(load_settings(site.paths.root), target, KEY, **options).inventory


def bring_back(site: GatedSite, backup: Path, *, force: bool = True, root: Path | None = None) -> None:
    """Restore a site, and start its gate again."""
    site.gate.close()
    restore(root or site.paths.root, backup, KEY, force=force)
    site.settings = load_settings(root or site.paths.root)
    site.seen.clear()  # the numbers of what was forgotten are given again
    site.start()


def trained(site: GatedSite, number: int = 1) -> None:
    """Answer one round; the hub gets it."""
    site.hand_over(site.give(site.task(study_of(), number=number)))
    site.sweep()
    site.receive_all()
    site.sweep()


def refusals(site: GatedSite) -> list[Reason]:
    return [message.reason for message in site.everything_sent() if isinstance(message, TaskRefusal)]
