"""`wardround site budget` and `egress`: the two ledgers, for the hospital's administrator."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from site_node.command_line import Folder, Json, open_site, print_json, told
from site_node.errors import SettingsError

WAITING_MEANS = (
    "These wait in the outbox, or are on their way: normal until the hub has answered. If their age grows, look "
    "whether the agent runs and reaches the hub."
)


@told
def budget(folder: Folder, as_json: Json = False) -> None:
    """Show the privacy ledger's account and check its chain: what was charged, what is left, what the hub has signed.

    The budget is each patient's own, at this hospital: for someone who is treated at two hospitals the epsilons add up.
    """
    from site_node.budget_report import budget_overview, sentences_of
    from site_node.governance.policy import load_policy

    with open_site(folder) as (settings, database):
        found = budget_overview(database, load_policy(settings.policy))
    if as_json:
        print_json(found)
        return
    for line in sentences_of(found):
        typer.echo(line)


@told
def egress(
    folder: Folder,
    as_json: Json = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain and the hub's receipts.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write everything, with envelopes and receipts, to a new JSON file.")
    ] = None,
) -> None:
    """List everything that left this hospital: time, kind, size, digest, and the hub's receipt."""
    from site_node.governance import egress as ledger
    from site_node.governance.context import read_hub_key
    from site_node.governance.hash_chain import verify as verify_chain

    with open_site(folder) as (settings, database):
        if verify:
            entries, head = verify_chain(database, "egress")
            receipts = ledger.verify_receipts(database, read_hub_key(settings.paths)) if entries else 0
            waiting = ledger.without_receipt(database, time.time())
            answer = {"ok": True, "entries": entries, "head": head, "receipts": receipts}
            print_json({**answer, "waiting": waiting, "waiting_means": WAITING_MEANS if waiting else None})
            return
        if export is not None:
            _export(ledger.egress_export(database), export)
            return
        found = ledger.egress_entries(database)
    if as_json:
        print_json(found)
        return
    for entry in found:
        typer.echo(_egress_line(entry))


def _export(document: dict[str, Any], path: Path) -> None:
    from protocol.digest import canonical_json
    from site_node.durable import write_durably

    if path.exists():
        raise SettingsError(f"{path} is there already.", "Name a new file.")
    write_durably(path, canonical_json(document), mode=0o600)
    typer.echo(f"{len(document['entries'])} entries are written to {path}.")


def _egress_line(entry: dict[str, Any]) -> str:
    answer = entry["receipt"]
    state = "waits" if answer is None else "taken" if answer["accepted"] else f"refused: {answer['reason']}"
    size = entry["envelope_bytes"] + entry["payload_bytes"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["time"]))
    return f"{entry['number']:>6}  {when}  {entry['kind']:<28} {size:>12} bytes  {state}"
