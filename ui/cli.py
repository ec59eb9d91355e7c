"""`wardround ui`: serve the pages for researchers, clinicians and hub operators."""

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
    port: Annotated[int, typer.Option(help="Port of the pages; a taken one moves on to the next.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port_strict: Annotated[bool, typer.Option("--port-strict", help="Fail if the port is taken.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser once the pages are up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one line of JSON.")] = False,
) -> None:
    """The web pages for researchers, clinicians and hub operators. Nothing is sent anywhere but to the hub."""
    from ui.server import listen, serve

    try:
        listener = listen(host, port, strict=port_strict)
    except PortError as error:
        typer.echo(f"{error.message} {error.remedy}", err=True)
        raise typer.Exit(1) from None
    bound = int(listener.getsockname()[1])
    shown = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else host  # noqa: S104 compared, not bound
    url = f"http://{shown}:{bound}"
    typer.echo(json.dumps({"url": url, "port": bound, "hub": hub}) if as_json else f"Wardround's pages: {url}")
    if open_browser:
        webbrowser.open(url)
    serve(UiSettings(hub.rstrip("/"), host, bound), listener)
