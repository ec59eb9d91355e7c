"""`wardround hub ...`: set up a hub, run it, invite hospitals and people, check its audit log.

Everything is imported when a command needs it, so that `--help` is quick and a command fails only for what it needs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hub.services import Services

OPERATOR_AT_CONSOLE = "operator:console"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""The hub: where hospitals meet. It proposes studies, sums updates, keeps versions and the audit log.

    First steps:

        wardround hub init HUB
        wardround hub users add HUB alice --role operator
        wardround hub serve HUB --redis redis://localhost:6379/0
        wardround hub worker HUB --redis redis://localhost:6379/0
        wardround hub invite HUB st-anna
    """,
)
users_app = typer.Typer(no_args_is_help=True, help="Accounts of people: researchers, clinicians, operators.")
audit_app = typer.Typer(no_args_is_help=True, help="The append-only log of all that changed.")
app.add_typer(users_app, name="users")
app.add_typer(audit_app, name="audit")

Folder = Annotated[Path, typer.Argument(metavar="HUB", help="The hub's folder, made by `init`.")]
Redis = Annotated[str | None, typer.Option("--redis", envvar="WARDROUND_HUB_REDIS", help="redis://host:port/number")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", envvar="WARDROUND_HUB_DATABASE", help="PostgreSQL URL; default: SQLite in the folder."),
]


@app.command()
def init(
    folder: Folder,
    redis: Redis = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set up a hub in a folder: settings, signing key, database. Again on the same folder changes nothing.

    Back up hub.key: who loses it can no longer prove that versions came from this hub.
    """
    from hub.settings import load_settings, write_settings

    with _telling():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = load_settings(folder, redis_url=redis, database_url=database)
        write_settings(settings)
        with _opened(folder, redis_url=redis, database_url=database) as services:
            key = services.key.public.text
    facts = {"dir": str(folder), "hub_key": key}
    _show(
        facts,
        as_json,
        f"The hub in {folder} is ready. Its public key: {key}\nNext: wardround hub users add, then serve.",
    )


@app.command()
def serve(
    folder: Folder,
    host: Annotated[str | None, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; if taken, the next free one is used.")] = None,
    strict_port: Annotated[bool, typer.Option("--strict-port", help="Fail if the port is taken.")] = False,
    redis: Redis = None,
    database: DatabaseUrl = None,
) -> None:
    """Run the hub's API until Ctrl-C. The database is brought up to date first.

    Hospitals reach it over HTTPS: put a reverse proxy with a certificate in front of it, or use it on one machine.
    Without --redis sums are computed in this process, which is enough to try things out.
    """
    with _telling():
        from hub.api.app import create_app
        from hub.logs import configure_logs
        from hub.memory import give_back_freed_memory
        from hub.serving import bind
        from hub.serving import serve as run
        from hub.settings import load_settings
        from hub.tasks.app import make_enqueue

        give_back_freed_memory()
        configure_logs()
        settings = load_settings(_existing(folder), host=host, port=port, redis_url=redis, database_url=database)
        application = create_app(settings, make_enqueue(settings), watch=True)
        listening = bind(settings.host, settings.port, strict=strict_port)
        typer.echo(f"The hub listens at http://{settings.host}:{listening.getsockname()[1]} (Ctrl-C ends it).")
        run(application, settings, listening)


@app.command()
def worker(folder: Folder, redis: Redis = None, database: DatabaseUrl = None) -> None:
    """Run the Celery worker that sums the updates of a round into the next version. Needs --redis."""
    with _telling():
        from hub.errors import SettingsError
        from hub.logs import configure_logs
        from hub.memory import give_back_freed_memory
        from hub.settings import load_settings
        from hub.tasks.app import run_worker

        give_back_freed_memory()
        configure_logs()
        settings = load_settings(_existing(folder), redis_url=redis, database_url=database)
        if settings.redis_url is None:
            raise SettingsError("The worker takes its work from Redis, and none is named.", "Give --redis redis://...")
        run_worker(settings)


@app.command()
def invite(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The site's name: lower-case letters, digits, dashes.")],
    as_json: AsJson = False,
) -> None:
    """Invite a hospital: prints its one-time code, which its administrator gives to `wardround site enroll`."""
    from hub.auth.coordinator import invite_site

    with _telling(), _opened(folder) as services:
        invitation = invite_site(services, name, OPERATOR_AT_CONSOLE)
    text = f"Code for {name}: {invitation.code}\nGive it to the site's administrator by another way than e-mail."
    _show(invitation.__dict__, as_json, text)


@app.command()
def sites(folder: Folder, as_json: AsJson = False) -> None:
    """List the hospitals and what they are doing."""
    from hub.auth.views import site_view
    from hub.storage import stores

    with _telling(), _opened(folder) as services, services.reading() as session:
        rows = [site_view(row, services.clock()) for row in stores.sites(session)]
    lines = [f"{row['name']:<24} {row['state']:<10} {row['activity'] if row['online'] else 'not here'}" for row in rows]
    _show(rows, as_json, "\n".join(lines) or "No site yet. Invite one with `wardround hub invite`.")


@app.command()
def suspend(folder: Folder, name: str) -> None:
    """Shut a hospital out at once, for example when its keys may be stolen. `resume` lets it back."""
    _change_site(name, folder, "suspend")


@app.command()
def resume(folder: Folder, name: str) -> None:
    """Let a suspended hospital back."""
    _change_site(name, folder, "resume")


@app.command("study-schema")
def study_schema() -> None:
    """Print the JSON Schema of a study specification: every key, its default and its meaning."""
    from protocol.study import study_json_schema

    typer.echo(json.dumps(study_json_schema(), indent=2))


@users_app.command("add")
def users_add(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: Annotated[str, typer.Option(help="researcher, clinician or operator.")],
    password: Annotated[
        str,
        typer.Option(
            envvar="WARDROUND_PASSWORD",
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            help="Asked for if not given; in a script use the variable, because others see command lines.",
        ),
    ],
) -> None:
    """Make an account; asks for its password, which has at least 10 characters."""
    from hub.auth.coordinator import add_person

    with _telling(), _opened(folder) as services:
        add_person(services, name, role, password, OPERATOR_AT_CONSOLE)
    typer.echo(f"{name} may sign in as {role}.")


@users_app.command("list")
def users_list(folder: Folder, as_json: AsJson = False) -> None:
    """List the accounts."""
    from hub.auth.views import person_view
    from hub.storage import stores

    with _telling(), _opened(folder) as services, services.reading() as session:
        rows = [person_view(row) for row in stores.people(session)]
    lines = [f"{row['name']:<24} {row['role']:<12} {'disabled' if row['disabled'] else ''}".rstrip() for row in rows]
    _show(
        rows,
        as_json,
        "\n".join(lines) or "No account yet. Make one with `wardround hub users add`.",
    )


@users_app.command("disable")
def users_disable(folder: Folder, name: str) -> None:
    """Disable an account; who is signed in with it is out at once."""
    from hub.auth.coordinator import disable_person

    with _telling(), _opened(folder) as services:
        disable_person(services, name, OPERATOR_AT_CONSOLE)
    typer.echo(f"{name} can no longer sign in.")


@app.command("save-version")
def save_version_command(
    folder: Folder,
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's digest.")],
    number: Annotated[int, typer.Argument(metavar="VERSION", help="The version's number.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Save a version's study, lineage and weights; `wardround bundle export --from OUT` makes a MONAI Bundle of it."""
    from hub.registry.saved_version import save_version

    with _telling(), _opened(folder) as services:
        save_version(services, study, number, out)
    typer.echo(f"Version {number} is saved in {out}.")


@app.command("add-weights")
def add_weights(
    folder: Folder,
    weights: Annotated[Path, typer.Argument(metavar="FILE", help="As `wardround bundle import` wrote it.")],
    as_json: AsJson = False,
) -> None:
    """Take in weights from outside, which a study may then name to start from."""
    from hub.registry.given_weights import give_weights

    with _telling(), _opened(folder) as services:
        digest = give_weights(services, weights, OPERATOR_AT_CONSOLE)
    _show({"weights": digest}, as_json, f"A study may start from them: start.weights: {digest}")


@audit_app.command("verify")
def audit_verify(
    folder: Folder,
    head: Annotated[Path | None, typer.Option(help="A head kept from `audit head`, to check against.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every entry of the log and its links; with --head also that nothing before it was rewritten.

    The exit status is 0 only if all is well. The service need not run.
    """
    from hub.audit.verify import verify_entries
    from hub.storage import audit_stores

    with _telling(), _opened(folder) as services, services.reading() as session:
        kept = head.read_bytes() if head else None
        verdict = verify_entries(audit_stores.stream(session), kept, services.key.public)
    result = "All links hold." if verdict.ok else f"NOT IN ORDER: {verdict.problem}"
    _show(verdict.__dict__, as_json, f"{verdict.entries} entries, head {verdict.head}. {result}")
    raise typer.Exit(0 if verdict.ok else 1)


@audit_app.command("head")
def audit_head(folder: Folder) -> None:
    """Print the log's signed head. Keep it elsewhere; `audit verify --head FILE` checks the log against it."""
    from hub.audit.checkpoint import signed_head

    with _telling(), _opened(folder) as services, services.reading() as session:
        envelope = signed_head(session, services)["envelope"]
    typer.echo(envelope)


def _change_site(name: str, folder: Path, event: str) -> None:
    from hub.auth.coordinator import change_site
    from hub.auth.enrolment import SiteEvent

    with _telling(), _opened(folder) as services:
        state = change_site(services, name, SiteEvent(event), OPERATOR_AT_CONSOLE)
    typer.echo(f"{name} is {state}.")


@contextmanager
def _opened(folder: Path, **overrides: Any) -> Iterator["Services"]:
    """Open a hub's stores for one command of the console; there is nobody to wake and nothing to enqueue."""
    from hub.services import open_services
    from hub.settings import load_settings
    from hub.storage.migrate import upgrade

    services = open_services(load_settings(_existing(folder), **overrides), lambda _name, _arguments: None)
    try:
        upgrade(services.database)
        yield services
    finally:
        services.waker.close()
        services.database.close()


@contextmanager
def _telling() -> Iterator[None]:
    """Turn an error of ours into one message and exit status 1."""
    from hub.errors import HubError
    from protocol.errors import ProtocolError

    try:
        yield
    except (HubError, ProtocolError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _existing(folder: Path) -> Path:
    from hub.errors import SettingsError
    from hub.settings import SETTINGS_FILE

    if not (folder / SETTINGS_FILE).is_file():
        raise SettingsError(f"{folder} is not a hub's folder.", f"Make it with `wardround hub init {folder}`.")
    return folder


def _show(facts: Any, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(facts) if as_json else text)
