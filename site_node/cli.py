"""`wardround site`: everything a hospital's administrator does, and the site's three processes.

Heavy imports stand inside the commands, so that the gate never loads torch and `--help` answers at once.
"""

import functools
from pathlib import Path
from typing import Annotated

import typer

from site_node.api_commands import api, reading_api, tokens
from site_node.audit_commands import audit_inversion, audit_privacy
from site_node.backup_commands import backup, restore
from site_node.check_command import check
from site_node.cohort_command import cohort
from site_node.command_line import (
    Folder,
    Json,
    begin_process,
    open_site,
    print_json,
    stop_on_signal,
    told,
)
from site_node.doctor_command import doctor
from site_node.errors import SettingsError
from site_node.export_command import export
from site_node.holding_commands import drain, pause, resume
from site_node.ledger_commands import budget, egress
from site_node.listen_command import listen, received
from site_node.opt_out_commands import opt_out, opt_outs
from site_node.peer_commands import peers, pin
from site_node.receipt_commands import receipts
from site_node.reconcile_command import reconcile
from site_node.retrieve_command import retrieve
from site_node.settings import load_settings
from site_node.study_commands import approve, policy, studies

app = typer.Typer(
    name="site",
    help="One hospital's node. Begin with `init`, then `index`, `enroll`, and run `gate`, `worker` and `agent`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ENTERED = (studies, approve, policy, budget, egress, reconcile, peers, pin, export, retrieve, listen, received, doctor)
for command in (*ENTERED, check, pause, drain, resume, backup, restore, api, reading_api):
    app.command()(command)
app.add_typer(tokens, name="tokens")


@app.command()
@told
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for this site.")],
    name: Annotated[str, typer.Option(help="The site's name at the hub: lower-case letters, digits and dashes.")],
    hub: Annotated[str, typer.Option(help="The hub's address, for example https://hub.example.org.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of DICOM files; may be given several times. Without: what comes over the network."),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="CSV for tabular studies, in place of images or beside.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of labels; by default labels.csv beside the images.")] = None,
    redis: Annotated[str, typer.Option(help="The site's own Redis.")] = "redis://127.0.0.1:6379/0",
    approval: Annotated[str, typer.Option(help="Who approves studies: person, or automatic by the policy.")] = "person",
    policy: Annotated[Path | None, typer.Option(help="A policy.yaml to copy instead of the careful default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads of a training job.")] = None,
) -> None:
    """Make a site: its directory with the right permissions, keys, site.yaml and a commented policy.yaml.

    Afterwards read DIR/policy.yaml: it says what this hospital allows. Then `wardround site index DIR` and
    `wardround site enroll DIR --code CODE` with the code that the hub's operator gave you.
    """
    from site_node.enrolment import create_site, exposure_of
    from site_node.governance.policy import policy_text

    if approval not in ("person", "automatic"):
        raise SettingsError(f"--approval is {approval!r}.", "Choose person or automatic.")
    text = policy.read_text(encoding="utf-8") if policy is not None else policy_text(approval)
    settings = create_site(
        folder, name, hub, images or [], labels, redis_url=redis, policy=text, threads=threads, table=table
    )
    typer.echo(f"The site {settings.name} is made in {settings.paths.root}.")
    if not images and table is None:
        typer.echo(
            f"Its images will be those that come over the network, in {settings.paths.received}, and its labels in "
            f"{settings.labels}: add a block listener or pacs to site.yaml (docs/images_in.md)."
        )
    if warning := exposure_of(settings.hub_url):
        typer.echo(warning, err=True)
    typer.echo(f"Next: read {settings.policy}, then wardround site index {folder}")


@app.command()
@told
def enroll(
    folder: Folder,
    code: Annotated[str, typer.Option(help="The one-time invitation code from the hub's operator.")],
    hub_key: Annotated[str | None, typer.Option(help="The hub's public key, if its operator told you.")] = None,
    as_json: Json = False,
) -> None:
    """Enrol the site with its hub, once: our public keys go there, the hub's comes here.

    Compare the printed fingerprint with the hub's operator, over the telephone.
    """
    from protocol.signing import SigningKey
    from site_node.agent.hub_client import HubClient, connect
    from site_node.enrolment import enroll_site

    settings = load_settings(folder)
    with connect(settings.hub_url) as http:
        hub = HubClient(http, settings.name, SigningKey.load_or_create(settings.paths.transport_key))
        key = enroll_site(settings, hub, code, hub_key)
    if as_json:
        print_json({"site": settings.name, "hub": settings.hub_url, "hub_key": key.text, "fingerprint": key.key_id})
        return
    typer.echo(f"{settings.name} is enrolled at {settings.hub_url}.")
    typer.echo(f"The hub's key: {key.text}\nIts fingerprint: {key.key_id}")


@app.command()
@told
def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A site's directory, or any folder of DICOM files.")],
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Also decode every frame of images not decoded yet, and list those that fail."),
    ] = False,
    every: Annotated[bool, typer.Option("--list", help="Name every file that is left out, not the first 10.")] = False,
    as_json: Json = False,
) -> None:
    """Index DICOM headers: of a site's images, or, to see what is there, of any folder without enrolment.

    A site's table is read too, and its rows counted; no value of it is printed.

    Files that cannot be used are counted by reason, and stop nothing; --json names them all, as --list does. Links are
    followed, also out of the folder; no folder is entered twice. Run it again after new images came. Where a folder
    went away, what is indexed is counted all the same, and the command fails.
    """
    from site_node.cohort.index import FolderLostError, index_folder
    from site_node.cohort.index_report import index_of_any_folder, progress_shown, report_as_json, report_as_text
    from site_node.cohort.table_report import examine_table, table_as_json, table_as_text

    folders, table, lost = [folder], None, None
    if (folder / "site.yaml").exists():
        settings = load_settings(folder)
        folders = list(settings.images)
        table = examine_table(settings.table) if settings.table else None
        with progress_shown(disable=as_json) as progress:
            try:
                report = index_folder(
                    folders, settings.paths.index, labels=settings.labels, decode=decode, progress=progress
                )
            except FolderLostError as error:
                report, lost = error.report, error
    elif folder.is_dir():
        with progress_shown(disable=as_json) as progress:
            report = index_of_any_folder(folder, decode=decode, progress=progress)
    else:
        raise SettingsError(f"There is no folder at {folder}.", "Name a site's directory or a folder of DICOM files.")
    if as_json:
        print_json(report_as_json(report, folders) | ({"table": table_as_json(table)} if table else {}))
    elif folders:
        typer.echo(report_as_text(report, folders, every=every))
    if table is not None and not as_json:
        typer.echo(table_as_text(table))
    if lost is not None:
        raise lost


@app.command()
@told
def gate(folder: Folder) -> None:
    """Run the gate: it decides what comes in, records, signs, and alone fills the outbox. Give it no network."""
    from site_node.governance.gate import Gate

    settings = begin_process(folder)
    opened = Gate(settings)
    try:
        opened.run(stop_on_signal())
    finally:
        opened.close()


@app.command()
@told
def agent(folder: Folder) -> None:
    """Run the agent: it carries mail between the hub and the gate, and needs only outbound HTTPS."""
    from protocol.signing import SigningKey
    from site_node.agent.agent import Agent
    from site_node.agent.hub_client import HubClient, connect
    from site_node.tasks.app import enqueue, make_app

    settings = begin_process(folder)
    queue = make_app(settings)
    with connect(settings.hub_url) as http:
        hub = HubClient(http, settings.name, SigningKey.load_or_create(settings.paths.transport_key))
        carrier = Agent(settings, hub, functools.partial(enqueue, queue))
        carrier.run(stop_on_signal())


@app.command()
@told
def worker(
    folder: Folder,
    gpu: Annotated[
        int | None, typer.Option(min=0, help="Use only this GPU, counted from 0: one worker for each.")
    ] = None,
) -> None:
    """Run the worker: it trains and evaluates what the gate ordered, with the site's Redis as its only connection."""
    from site_node.tasks.gpu import keep_gpus_free, keep_to_gpu
    from site_node.tasks.worker import check_ready, run_worker

    settings = begin_process(folder)
    check_ready(settings)
    if settings.keep_gpus_free:
        keep_gpus_free(settings.keep_gpus_free, gpu)
    if gpu is not None:
        keep_to_gpu(gpu)
    raise typer.Exit(run_worker(settings))


@app.command()
@told
def status(folder: Folder, as_json: Json = False) -> None:
    """Show where the site stands: enrolled or paused, studies, tasks at work, what waits to leave."""
    from site_node.overview import status_of

    with open_site(folder) as (settings, database):
        found = status_of(settings, database)
    if as_json:
        print_json(found)
        return
    held = "paused" if found["paused"] else "draining: nothing new begins" if found["draining"] else None
    standing = held or ("enrolled" if found["enrolled"] else "not enrolled")
    typer.echo(f"{found['site']} at {found['hub']}: {standing}")
    if (hours := found["train_hours"]) is not None and not hours["open"]:
        typer.echo(f"  outside the hours {hours['hours']}: no training begins before {hours['opens_at']}")
    if found["ledger_behind"]:
        typer.echo("  the privacy ledger is behind the hub's copy; nothing is spent: see `wardround site reconcile`")
    if found["behind_mark"]:
        typer.echo("  an old backup of the gate was restored; nothing is answered: see `wardround site reconcile`")
    for digest, state in found["studies"].items():
        typer.echo(f"  study {digest[:19]}…  {state}")
    for task in found["tasks"]:
        done = f"  {task['activity']} {task['fraction']:.0%}" if "fraction" in task else ""
        typer.echo(f"  task {task['task_id']}  {task['state']}{done}")
    typer.echo(f"  {found['outbox']} messages wait to leave; {found['egress_entries']} were recorded so far")


@app.command()
@told
def networks(as_json: Json = False) -> None:
    """List the networks that studies may name."""
    from site_node.training.networks import PERMITTED

    names = sorted(PERMITTED)
    if as_json:
        print_json(names)
        return
    for name in names:
        typer.echo(name)


app.command()(audit_privacy)
app.command()(cohort)
app.command()(receipts)
app.command()(opt_out)
app.command()(opt_outs)
app.command()(audit_inversion)

if __name__ == "__main__":
    app()
