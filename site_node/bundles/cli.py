"""`wardround bundle`: a version out as a MONAI Bundle, and a MONAI Bundle in as a study. Run where torch is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from site_node.command_line import Json, print_json, told
from site_node.errors import BundleError, RefusedBundleError

if TYPE_CHECKING:
    from site_node.bundles.released import ReleasedVersion

app = typer.Typer(
    name="bundle",
    help="MONAI Bundles: export a version as one, or make a study of one. Nothing of a bundle is ever run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("export")
@told
def export_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the bundle.")],
    saved: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A version saved by `wardround hub save-version`.")
    ] = None,
    hub: Annotated[str | None, typer.Option(help="Or the hub's address, with --study, --version and --as.")] = None,
    study: Annotated[str | None, typer.Option(metavar="DIGEST", help="The study's digest.")] = None,
    version: Annotated[int | None, typer.Option(min=0, help="The version's number.")] = None,
    person: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Your name at the hub.")] = None,
    password: Annotated[
        str | None, typer.Option(envvar="WARDROUND_PASSWORD", help="Your password; asked for if not given.")
    ] = None,
    hub_key: Annotated[str | None, typer.Option(help="The hub's public key: its signature is checked.")] = None,
    license_name: Annotated[str, typer.Option("--license", help="The licence's name, for example CC-BY-4.0.")] = "",
    license_file: Annotated[Path | None, typer.Option(help="The licence's text.")] = None,
    as_json: Json = False,
) -> None:
    """Write a version as a MONAI Bundle: weights, configs, model card, lineage; ONNX and TorchScript where they fit."""
    from site_node.bundles.export import export_bundle
    from site_node.bundles.hub_versions import fetch_version, signed_in
    from site_node.bundles.released import saved_version

    text = license_file.read_text(encoding="utf-8") if license_file is not None else ""
    released: ReleasedVersion
    if saved is not None:
        released = saved_version(saved, hub_key)
    elif hub and study and version is not None and person:
        secret = password or typer.prompt(f"Password of {person}", hide_input=True)
        with signed_in(hub, person, secret) as client:
            released = fetch_version(client, study, version, hub_key)
    else:
        raise BundleError("Which version?", "Give --from DIR, or --hub, --study, --version and --as.")
    report = export_bundle(released, out, license_name=license_name, license_text=text)
    if as_json:
        print_json({"bundle": str(out), "formats": report.formats, "needs_wardround": report.needs_wardround})
        return
    typer.echo(f"Version {released.number} of {released.study.name} is a MONAI Bundle in {out}.")
    for name, refusal in report.formats.items():
        typer.echo(f"  {name}: {'written; gives the same outputs' if refusal is None else refusal}")
    typer.echo(f"Read {out / 'docs' / 'README.md'}: it says how to run it, and what it is not for.")


@app.command("import")
@told
def import_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A MONAI Bundle: a folder or a zip.")],
    out: Annotated[Path, typer.Option(help="The study to write; its weights go beside it, as .safetensors.")],
    terms: Annotated[
        Path | None, typer.Option(help="YAML of what a bundle does not say: cohort, label, training, privacy ...")
    ] = None,
    own_preprocessing: Annotated[
        bool, typer.Option("--own-preprocessing", help="Take network and weights; prepare images as studies do.")
    ] = False,
    policy: Annotated[
        Path | None, typer.Option(help="A hospital's policy.yaml, whose allowed_bundles are taken more of.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a study of a bundle: its network and preparation from allow-lists, its weights as those to start from."""
    from site_node.bundles.study_file import read_terms, write_study
    from site_node.bundles.taking_in import take_in
    from site_node.governance.policy import load_policy

    allowed = load_policy(policy).allowed_bundles if policy is not None else []
    stated: dict[str, Any] = read_terms(terms) if terms is not None else {}
    try:
        taken = take_in(bundle, stated, own_preprocessing=own_preprocessing, allowed=allowed)
    except RefusedBundleError as error:
        if as_json:
            print_json({"bundle": error.bundle_digest, "refused": error.message, "remedy": error.remedy})
        raise
    weights = write_study(taken, out)
    if as_json:
        digests = {"study": taken.study.digest, "weights": taken.study.start.weights, "bundle": taken.bundle_digest}
        print_json({**digests, "written": [str(out), str(weights)], "differences": list(taken.differences)})
        return
    typer.echo(f"{out} starts from {weights} ({taken.study.start.weights}).")
    typer.echo(f"The bundle's digest: {taken.bundle_digest}")
    for difference in taken.differences:
        typer.echo(difference)
    typer.echo(f"Next: give the weights to the hub (wardround hub add-weights HUB {weights}), then propose the study.")


if __name__ == "__main__":
    app()
