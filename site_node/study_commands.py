"""`wardround site studies`, `approve` and `policy`: what is asked of this hospital, and its answer."""

import os
import pwd
import sqlite3
import time
from typing import Annotated, Any

import typer

from site_node.command_line import Folder, Json, open_site, print_json, study_beginning, told
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings

WHO_SIGNS = (
    "The statement is signed with this site's own key; the person's name is what is typed here, beside the account."
)


@told
def studies(
    folder: Folder,
    as_json: Json = False,
    show: Annotated[
        str | None, typer.Option(metavar="DIGEST|NAME", help="One study, whole, in plain words: what you sign.")
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="With --show: the exact bytes whose digest is signed (JSON, which is YAML).")
    ] = False,
) -> None:
    """List the studies proposed to this hospital, or show one whole: what it does, whom one trusts, what it costs."""
    from site_node.governance.policy import load_policy
    from site_node.overview import studies_of

    if as_yaml and show is None:
        raise SettingsError("--yaml prints one study.", "Name it with --show DIGEST or --show NAME.")
    with open_site(folder) as (settings, database):
        if show is not None:
            _show(settings, database, show, as_json=as_json, as_yaml=as_yaml)
            return
        found = studies_of(database, load_policy(settings.policy), time.time())
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("No study was proposed yet.")
    for study in found:
        typer.echo(f"{study['digest']}  {study['state']}: {_terms(study)}")
        objection = study.get("policy_objection") or ""
        explanation = "" if study["explanation"] in objection else study["explanation"]
        for line in (explanation, objection):
            if line:
                typer.echo(f"    {line}")
    if found:
        typer.echo("Read one whole: wardround site studies DIR --show DIGEST")


@told
def approve(
    folder: Folder,
    digest: Annotated[str, typer.Argument(help="The study's digest, or its beginning, as `studies` lists it.")],
    person: Annotated[
        str | None, typer.Option(help="Who decides: any text, recorded beside this account; by default its name.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="The approval ends after so many days.")] = None,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse instead; an approval is withdrawn by it.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw an approval: what waits is not sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
) -> None:
    """Decide on a study: approve exactly this digest; a changed study needs a new approval.

    Shows the study in plain words and asks. The gate then charges the privacy ledger for the study's planned maximum
    and tells the hub. The statement is signed with the site's own key: it proves that somebody who may use this key
    decided so. The name of the person is what --person says; the operating system's account is signed beside it.
    """
    from site_node.deciding import decide_on
    from site_node.governance.approval import DecisionWord

    if refuse and withdraw:
        raise SettingsError("--refuse and --withdraw exclude each other.", "Choose one.")
    with open_site(folder) as (settings, database):
        study = study_beginning(database, digest)
        word: DecisionWord = "withdrawn" if withdraw else "refused" if refuse else "approved"
        shown = _let_read(settings, database, study, asks=not yes) if word == "approved" else None
        account = _account()
        decider = person or account
        decide_on(settings, database, study, word, decider, account, time.time(), days=days, shown=shown)
    typer.echo(f"{word}: {study}, by {decider}. The gate acts on it within a second.")


@told
def policy(folder: Folder, as_json: Json = False) -> None:
    """Show the policy as the gate understands it, and what it says to the studies that were proposed."""
    from site_node.governance.policy import load_policy
    from site_node.overview import studies_of

    found = load_policy(load_settings(folder).policy)
    values = found.model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name}: {value}")
    try:
        with open_site(folder) as (_, database):
            proposed = studies_of(database, found, time.time())
    except (PermissionError, sqlite3.OperationalError):  # the gate's folder is closed to other users
        typer.echo("What it means for the studies that were proposed: run this as the gate's user.", err=True)
        return
    for study in proposed:
        if "name" in study:
            typer.echo(f"study {study['name']} {study['digest'][:19]}: {study['policy_objection'] or 'allowed'}")


def _show(settings: SiteSettings, database: sqlite3.Connection, wanted: str, *, as_json: bool, as_yaml: bool) -> None:
    from site_node.governance.policy import load_policy
    from site_node.governance.records import study_record
    from site_node.study_summary import document_of, lines_of

    record = study_record(database, _named(database, wanted))
    if record is None:
        raise SettingsError("The study is gone.", "See `wardround site studies DIR`.")
    if as_yaml:
        typer.echo(record.study.canonical_bytes(), nl=False)
        return
    found = document_of(database, record, load_policy(settings.policy))
    if as_json:
        print_json(found)
        return
    for line in lines_of(found["summary"]):
        typer.echo(line)


def _named(database: sqlite3.Connection, wanted: str) -> str:
    from protocol.errors import ProtocolError
    from site_node.governance.records import study_records

    found = []
    for record in study_records(database):
        try:
            if record.study.name == wanted:
                found.append(record.digest)
        except ProtocolError:  # one that never parsed has no name
            continue
    if len(found) > 1:
        raise SettingsError(f"Several studies are named {wanted[:80]!r}.", "Name one by its digest.")
    return found[0] if found else study_beginning(database, wanted)


def _let_read(settings: SiteSettings, database: sqlite3.Connection, digest: str, *, asks: bool) -> str:
    """Show what would be signed, ask, and return the digest of what was shown; not before the figures are known."""
    from site_node.deciding import check_may_approve, shown_digest
    from site_node.governance.policy import load_policy
    from site_node.governance.records import study_record
    from site_node.study_summary import lines_of, summary_of

    record = check_may_approve(study_record(database, digest), settings.paths.root)
    summary = summary_of(database, record, load_policy(settings.policy))
    for line in lines_of(summary):
        typer.echo(line)
    if record.state == "awaiting" and record.detail:
        typer.echo(f"Mind: {record.detail}")
    typer.echo(WHO_SIGNS)
    if asks and not typer.confirm("Approve this study?"):
        typer.echo("Nothing was decided.")
        raise typer.Exit(1)
    return shown_digest(summary, record.detail)


def _terms(study: dict[str, Any]) -> str:
    if "name" not in study:
        return ""
    epsilon = "no differential privacy" if study["epsilon"] is None else f"epsilon {study['epsilon']:g}"
    return f"{study['name']}, {study['rounds']} rounds, {epsilon}"


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run as a user id without a name
        return f"uid-{os.getuid()}"
