"""`wardround site api`, `reading-api` and `tokens`: the site's own HTTP APIs, and who may call them."""

import ipaddress
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Annotated, Any

import typer

from site_node.command_line import Folder, Json, begin_process, print_json, told
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings

LOOPBACK_NAME = "localhost"
PORT, READING_PORT = 8450, 8451
LEAST_EVENT_BYTES = 16 << 10
DAYS = 90
tokens = typer.Typer(help="Make, list and revoke tokens of the site's own API.", no_args_is_help=True)


Host = Annotated[str, typer.Option(help="Address to listen on: this machine, or one of the intranet.")]
Certificate = Annotated[Path | None, typer.Option(help="PEM; needed unless it listens to this machine only.")]
Key = Annotated[Path | None, typer.Option(help="The certificate's private key.")]


@dataclass(frozen=True)
class Place:
    """Where an API listens, and with which certificate."""

    host: str
    port: int
    certificate: Path | None
    key: Path | None

    @property
    def url(self) -> str:
        """Return the address as a browser writes it."""
        return (
            f"http{'s' if self.certificate else ''}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        )

    def check(self) -> None:
        """Refuse an address of the Internet, every address at once, tokens in clear, and a certificate that is none.

        Raises: SettingsError.
        """
        check_address(self.host, has_certificate=self.certificate is not None and self.key is not None)
        if self.certificate is not None:
            check_certificate(self.certificate, self.key)


@told
def api(
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = PORT,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Serve the site's pages (studies, approvals, tasks, budget, egress, doctor) to its own people, until it is ended.

    Run it as the gate's user. It reads no image and no index. Never let it be reached from outside the hospital.
    """
    from site_node.api.app import MAX_BODY_BYTES, make_app

    serve_pages(folder, make_app, Place(host, port, certificate, key), MAX_BODY_BYTES)


@told
def reading_api(
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = READING_PORT,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Serve the pages that need images: index, readiness, and reading cases for clinicians, until it is ended.

    Run it as the worker's user, and only if somebody reads: it opens images and the index. Never let it be reached from
    outside the hospital. It takes the reading tokens that follow from those of `wardround site tokens`.
    """
    from site_node.reading.app import MAX_BODY_BYTES, make_app

    serve_pages(folder, make_app, Place(host, port, certificate, key), MAX_BODY_BYTES)


def serve_pages(folder: Path, make_app: Callable[[SiteSettings], Any], place: Place, most_bytes: int) -> None:
    """Serve an API at a place of the intranet until it is ended.

    Raises: SettingsError for a place or certificate that will not do.
    """
    import uvicorn

    place.check()
    settings = begin_process(folder)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket] | None = None) -> None:
            await super().startup(sockets)
            typer.echo(f"Listening on {place.url}; every page needs a token. End it with Ctrl-C.", err=True)

    config = uvicorn.Config(
        make_app(settings),
        host=place.host,
        port=place.port,
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
        log_config=None,
        server_header=False,
        access_log=False,
        limit_concurrency=32,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=max(4 * most_bytes, LEAST_EVENT_BYTES),
    )
    Server(config).run()


def check_address(host: str, *, has_certificate: bool) -> None:
    """Refuse an address of the Internet, every address at once, and tokens in clear over a network. Pure.

    Raises: SettingsError.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == LOOPBACK_NAME else host)
    except ValueError:
        raise SettingsError(f"{host!r} is no address.", "Write a number, for example 10.0.0.5.") from None
    if address.is_unspecified or not (address.is_private or address.is_loopback or address.is_link_local):
        raise SettingsError(f"{host} is not one address of the intranet.", "Name the one on which people call it.")
    if not address.is_loopback and not has_certificate:
        raise SettingsError("Tokens would cross the network in clear.", "Give --certificate and --key.")


def check_certificate(certificate: Path, key: Path | None) -> None:
    """Read a certificate and its key as the server will.

    Raises: SettingsError if they are not there, are no PEM, or do not belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        is_content = isinstance(error, ssl.SSLError)
        why = "no PEM, or not of one pair" if is_content else (error.strerror or "input error").lower()
        raise SettingsError(
            f"{certificate}, or its key, cannot be read: {why}.", "Check --certificate and --key."
        ) from None


@tokens.command("add")
@told
def add(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The person: decisions made with the token are signed under this name.")],
    role: Annotated[str, typer.Option(help="administrator, clinician or auditor.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="It ends after so many days.")] = DAYS,
) -> None:
    """Make a person's token and print it, once: it is kept as a digest only."""
    from site_node.api.reading_tokens import publish_readers
    from site_node.api.tokens import add_token, open_tokens, reading_token

    paths, now = load_settings(folder).paths, time.time()
    with open_tokens(paths) as database:
        token = add_token(database, name, role, days, now)
        publish_readers(paths, database, now)
    typer.echo(token)
    typer.echo("It is not shown again. Hand it over in person.", err=True)
    typer.echo(f"For scripts at the reading API, in its place: {reading_token(token)}", err=True)


@tokens.command("list")
@told
def list_tokens(folder: Folder, as_json: Json = False) -> None:
    """List whose tokens count now."""
    from site_node.api.tokens import live_tokens, open_tokens

    with open_tokens(load_settings(folder).paths) as database:
        rows = live_tokens(database, time.time())
    found = [{name: row[name] for name in ("name", "role", "made_at", "ends_at")} for row in rows]
    if as_json:
        print_json(found)
        return
    for row in found:
        ends = time.strftime("%Y-%m-%d", time.gmtime(row["ends_at"]))
        typer.echo(f"{row['name']:<24} {row['role']:<14} until {ends}")


@tokens.command("revoke")
@told
def revoke(folder: Folder, name: Annotated[str, typer.Argument(help="The person.")]) -> None:
    """Let a person's token count no more, at once."""
    from site_node.api.reading_tokens import publish_readers
    from site_node.api.tokens import open_tokens, revoke_token

    paths, now = load_settings(folder).paths, time.time()
    with open_tokens(paths) as database:
        count = revoke_token(database, name, now)
        publish_readers(paths, database, now)
    if not count:
        raise SettingsError(f"{name} has no token.", "See `wardround site tokens list DIR`.")
    typer.echo("Revoked.")
