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

BEHIND_MARK = "The list does not hold the head that SITE/mark noted, or the mark is lost: entries may be missing."
REMEDY = (
    "Stop the gate and keep a copy of SITE/gate. Was a backup restored, or the mark lost: `wardround site reconcile`. "
    "Else somebody changed the database: restore the last backup, and ask the hub's operator for what it received."
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
    from protocol.signing import SigningKey
    from site_node.governance import egress as ledger
    from site_node.governance import high_water
    from site_node.governance.context import read_hub_key
    from site_node.governance.hash_chain import verify as verify_chain
    from site_node.governance.records import study_records

    with open_site(folder) as (settings, database):
        if verify:
            entries, head = verify_chain(database, "egress")
            receipts = ledger.verify_receipts(database, read_hub_key(settings.paths)) if entries else 0
            waiting = ledger.without_receipt(database, time.time())
            faults = ledger.faults_of(database, SigningKey.load_or_create(settings.paths.identity_key).public)
            if high_water.is_behind(settings.paths, database):
                faults.append(BEHIND_MARK)
            answer = {
                "ok": not faults,
                "faults": faults,
                "remedy": REMEDY if faults else None,
                "entries": entries,
                "head": head,
                "receipts": receipts,
            }
            print_json({**answer, "waiting": waiting, "waiting_means": WAITING_MEANS if waiting else None})
            if faults:
                raise typer.Exit(1)
            return
        if export is not None:
            _export(ledger.egress_export(database), export)
            return
        found = ledger.egress_entries(database)
        names = {known.digest: known.study.name for known in study_records(database)}
    if as_json:
        print_json(found)
        return
    typer.echo(
        f"{'no':>6} {'time (UTC)':<19} {'kind':<18} {'study':<12} {'rnd':>4} {'digest':<12} {'bytes':>10} answer"
    )
    for entry in found:
        typer.echo(_egress_line(entry, names))


def _export(document: dict[str, Any], path: Path) -> None:
    from protocol.digest import canonical_json
    from site_node.durable import write_durably

    if path.exists():
        raise SettingsError(f"{path} is there already.", "Name a new file.")
    write_durably(path, canonical_json(document), mode=0o600)
    typer.echo(f"{len(document['entries'])} entries are written to {path}.")


def _egress_line(entry: dict[str, Any], names: dict[str, str]) -> str:
    answer = entry["receipt"]
    state = "waits" if answer is None else "taken" if answer["accepted"] else "refused"
    if "takes_back" in entry:
        state = f"not sent: {entry['takes_back']}"
    size = entry["envelope_bytes"] + entry["payload_bytes"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["time"]))
    kind = entry["kind"].removeprefix("wardround.").removesuffix("/1")[:18]
    study, message = (entry[name] or "-" for name in ("study_digest", "message_digest"))
    turn = "-" if entry["round"] is None else entry["round"]
    return (
        f"{entry['number']:>6} {when} {kind:<18} {names.get(study, study[7:19]):<12.12} {turn:>4} "
        f"{message[7:19]} {size:>10} {state}"
    )
