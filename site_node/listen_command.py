"""`wardround site listen` and `received`: images that modalities and the PACS send, and what became of them."""

from collections import Counter
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from site_node.command_line import Folder, Json, begin_process, print_json, stop_on_signal, told
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings


@told
def listen(folder: Folder) -> None:
    """Run the listener: modalities named in site.yaml (the block `listener`) send images to it by C-STORE.

    What is whole goes into DIR/received, which `index` reads; the rest is quarantined with a reason: see `received`.
    Give it no way to the Internet.
    """
    from site_node.ingest.listener import listening
    from site_node.ingest.listener_paths import ListenerPaths

    settings = begin_process(folder)
    if settings.listener is None:
        raise SettingsError(
            f"{settings.paths.configuration} has no block listener.",
            "Add one that names who may send; docs/images_in.md shows it.",
        )
    stop = stop_on_signal()
    with listening(settings.listener, ListenerPaths.of(settings.paths)) as listener:
        listener.run(stop)


@told
def received(folder: Folder, as_json: Json = False) -> None:
    """Show what came: what the listener received and `retrieve` fetched, and each quarantined object with its reason.

    The listener writes its counts now and then: they are as of the time that is said.
    """
    found = received_so_far(load_settings(folder))
    if as_json:
        print_json(found)
        return
    counts, as_of = found["counts"], found["as_of"]
    typer.echo(f"{found['fetched']} objects fetched from the PACS and stored")
    typer.echo(f"Sent to the listener, {f'as of {as_of}' if as_of else 'which has not run'}:")
    typer.echo(
        f"{counts['stored']} objects stored, {counts['repeated']} sent again, {counts['quarantined']} quarantined, "
        f"{counts['refused_no_space']} refused for want of space"
    )
    typer.echo(
        f"{counts['associations']} associations, {counts['associations_refused']} callers refused; storage commitment: "
        f"{counts['commitments']} results told, {counts['commitments_undelivered']} not"
    )
    reasons, quarantine = found["reasons"], found["quarantine"]
    if quarantine:
        typer.echo(f"In quarantine, sent or fetched: {len(quarantine)} objects, refused {sum(reasons.values())} times:")
    for reason, number in reasons.items():
        typer.echo(f"  {number:6d}  {reason}")
    for entry in quarantine:
        times = f", {entry['times']} times" if entry["times"] > 1 else ""
        kept = entry["file"] or "no bytes kept"
        typer.echo(f"  quarantined: {kept}, from {entry['caller']}{times}: {entry['reason']}")


def received_so_far(settings: SiteSettings) -> dict[str, Any]:
    """Return counts and quarantine as plain data, without a word of any object.

    `reasons` counts refusals, as `counts` does: an object that was refused again counts again, and is one entry.
    """
    from site_node.ingest.counts import read_counts
    from site_node.ingest.listener_paths import ListenerPaths
    from site_node.ingest.quarantine import Quarantine

    paths = ListenerPaths.of(settings.paths)
    entries = list(Quarantine(paths.quarantine).entries())
    reasons = Counter[str]()
    for entry in entries:
        reasons[entry.reason] += entry.times
    return {
        "folder": str(paths.images),
        "quarantine_folder": str(paths.quarantine),
        "counts": read_counts(paths.counts),
        "as_of": _written_at(paths.counts),
        "fetched": _fetched_so_far(settings),
        "reasons": dict(reasons.most_common()),
        "quarantine": [asdict(entry) for entry in entries],
    }


def _written_at(counts: Path) -> str | None:
    try:
        written = counts.stat().st_mtime
    except FileNotFoundError:
        return None
    return datetime.fromtimestamp(written).astimezone().isoformat(sep=" ", timespec="seconds")


def _fetched_so_far(settings: SiteSettings) -> int:
    from site_node.ingest.retrieval_journal import RetrievalJournal
    from site_node.ingest.retrieval_run import journal_path

    path = journal_path(settings.paths)
    if not path.exists():
        return 0
    with closing(RetrievalJournal(path)) as journal:
        return journal.stored_so_far()
