"""The one command, `wardround`. Each part's commands are loaded only when called, so that a hub needs no MONAI."""

import importlib
from typing import Annotated

import typer

FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
EXTRAS = {"hub": "hub", "site": "site", "bundle": "bundles", "ui": "ui", "demo": "all", "simulate": "all"}

app = typer.Typer(
    name="wardround",
    help="Hospitals train one diagnostic imaging model together; no patient's image moves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app()


@app.callback()
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Hospitals train one diagnostic imaging model together; no patient's image moves."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"wardround {version_of('wardround')}")
        raise typer.Exit


@app.command("hub", context_settings=FORWARD, add_help_option=False)
def hub(context: typer.Context) -> None:
    """The centre: enrol hospitals and people, serve the API, aggregate, verify the audit log."""
    _forward("hub.cli", context)


@app.command("site", context_settings=FORWARD, add_help_option=False)
def site(context: typer.Context) -> None:
    """One hospital: index images, set the policy, approve studies, run gate, worker and agent."""
    _forward("site_node.cli", context)


@app.command("bundle", context_settings=FORWARD, add_help_option=False)
def bundle(context: typer.Context) -> None:
    """MONAI Bundles: export a version as one, or make a study of one."""
    _forward("site_node.bundles.cli", context)


@app.command("ui", context_settings=FORWARD, add_help_option=False)
def ui(context: typer.Context) -> None:
    """The web pages for researchers, clinicians and hub operators."""
    _forward("ui.cli", context)


@app.command("demo", context_settings=FORWARD, add_help_option=False)
def demo(context: typer.Context) -> None:
    """A whole federation on this machine: a hub, three hospitals with real radiographs, and the web pages."""
    _forward("compose.local", context)


@app.command("simulate", context_settings=FORWARD, add_help_option=False)
def simulate(context: typer.Context) -> None:
    """The same rounds in one process, on folders of DICOM: for trying out a study."""
    _forward("compose.simulation", context)


def _forward(module: str, context: typer.Context) -> None:
    name = str(context.info_name)
    try:
        part = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in {"hub", "site_node", "ui", "compose", "protocol"}:
            raise
        typer.echo(
            f"`wardround {name}` needs the package {error.name!r}. Install it: pip install 'wardround[{EXTRAS[name]}]'",
            err=True,
        )
        raise typer.Exit(1) from None
    part.app(args=context.args, prog_name=f"wardround {name}")


if __name__ == "__main__":
    main()
