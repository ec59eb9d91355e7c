"""`wardround site peers` and `pin`: the other hospitals' identity keys, compared by people before any masked round."""

from typing import Annotated

import typer

from site_node.command_line import Folder, Json, print_json, told
from site_node.settings import load_settings


@told
def peers(folder: Folder, as_json: Json = False) -> None:
    """Show this hospital's own key and fingerprint, and those that are pinned here.

    Read your fingerprint to the other administrator over the telephone, and have theirs read to you, before you pin.
    `wardround simulate` and `wardround demo` pin their sites' keys by themselves: one machine holds them all.
    """
    from protocol.signing import SigningKey
    from site_node.governance.peers import fingerprint, load_peers

    settings = load_settings(folder)
    own, pinned = SigningKey.load_or_create(settings.paths.identity_key).public, load_peers(settings.paths)
    if as_json:
        keys = {name: {"key": key.text, "fingerprint": fingerprint(key)} for name, key in pinned.items()}
        print_json({"site": settings.name, "key": own.text, "fingerprint": fingerprint(own), "pinned": keys})
        return
    typer.echo(f"{settings.name} (this hospital)\n  key          {own.text}\n  fingerprint  {fingerprint(own)}")
    for name, key in pinned.items():
        typer.echo(f"{name}\n  key          {key.text}\n  fingerprint  {fingerprint(key)}")
    if not pinned:
        typer.echo("No other hospital is pinned; masked rounds are refused until their keys are.")


@told
def pin(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The other hospital's name at the hub.")],
    key: Annotated[str, typer.Argument(help="Its key, as its own `wardround site peers` shows it.")],
) -> None:
    """Pin another hospital's identity key. The gate uses it from the next masked round on."""
    from site_node.governance.peers import fingerprint, pin_peer

    settings = load_settings(folder)
    pinned = pin_peer(settings.paths, settings.name, name, key)
    typer.echo(f"Pinned {name}. Its administrator must read you this fingerprint:\n  {fingerprint(pinned)}")
