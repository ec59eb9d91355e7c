"""`wardround ui`: serve the pages of a hub, or with `--site` those of one hospital for its own people."""

import json
import webbrowser
from typing import Annotated

import typer

from ui.errors import PortError
from ui.settings import DEFAULT_PORT, UiSettings

DEFAULT_HUB = "http://127.0.0.1:8440"

app = typer.Typer(name="ui", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve_pages(
    hub: Annotated[str, typer.Option(help="Address of the hub's API.")] = DEFAULT_HUB,
    site: Annotated[
        str, typer.Option(help="Address of a hospital's own API: its own pages are served, and no hub is spoken to.")
    ] = "",
    reading: Annotated[str, typer.Option(help="With --site: address of its reading API, if it runs.")] = "",
    port: Annotated[int, typer.Option(help="Port of the pages; a taken one moves on to the next.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port_strict: Annotated[bool, typer.Option("--port-strict", help="Fail if the port is taken.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser once the pages are up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one line of JSON.")] = False,
) -> None:
    """The web pages: of a hub for researchers, clinicians and operators, or, with --site, of one hospital for its own.

    Nothing is sent anywhere but to that hub, or that site.
    """
    from ui.server import listen, serve

    if reading and not site:
        typer.echo("--reading belongs to --site.", err=True)
        raise typer.Exit(1)

    try:
        listener = listen(host, port, strict=port_strict)
    except PortError as error:
        typer.echo(f"{error.message} {error.remedy}", err=True)
        raise typer.Exit(1) from None
    bound = int(listener.getsockname()[1])
    shown = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else host  # noqa: S104 compared, not bound
    url = f"http://{shown}:{bound}"
    told = {"site": site, "reading": reading} if site else {"hub": hub}
    typer.echo(json.dumps({"url": url, "port": bound, **told}) if as_json else f"Wardround's pages: {url}")
    if open_browser:
        webbrowser.open(url)
    serve(UiSettings(hub.rstrip("/"), host, bound, site.rstrip("/"), reading.rstrip("/")), listener)
