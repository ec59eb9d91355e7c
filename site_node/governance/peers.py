"""The other hospitals' identity keys, as this hospital's own people have compared and pinned them: SITE/peers.yaml.

    north: 8mQ3...=        # a site's name and its public key, in base64

Under masks the sites promise each other something, and the hub carries the messages. Without pins it could put a site
of its own between any two. So a masked round is refused if one of its members is not pinned here with the key that
signed: a person compares fingerprints over a telephone once, then `wardround site pin DIR NAME KEY`.
"""

import re
from pathlib import Path

import yaml

from protocol.digest import hex_of
from protocol.errors import SignatureError
from protocol.signing import PublicKey
from protocol.study_parts import NAME_PATTERN
from site_node.durable import write_durably
from site_node.errors import SettingsError
from site_node.settings import SitePaths, read_yaml

HEADER = "# The other hospitals' identity keys. Add one only after its administrator has read you the fingerprint.\n"
GROUP_DIGITS = 4


def peers_path(paths: SitePaths) -> Path:
    """Return where a site's pinned keys lie."""
    return paths.root / "peers.yaml"


def load_peers(paths: SitePaths) -> dict[str, PublicKey]:
    """Return the pinned keys by name; none if there is no file.

    Raises: SettingsError if the file is something else.
    """
    path = peers_path(paths)
    if not path.exists() or _is_comment_only(path):
        return {}
    text = read_yaml(path, "Pin a key: wardround site pin DIR NAME KEY")
    return {_name(path, name): _key(path, name, key) for name, key in text.items()}


def pin_peer(paths: SitePaths, own: str, name: str, key: str) -> PublicKey:
    """Pin another site's key; a name that is pinned already keeps its key. `own` is this site's name.

    Raises: SettingsError if the name is none or our own, the key is none, or another key is pinned for the name.
    """
    found = _typed_key(own, name, key)
    path = peers_path(paths)
    pinned = load_peers(paths)
    if name in pinned and pinned[name] != found:
        raise SettingsError(
            f"Another key is pinned for {name}.",
            f"If its administrator confirms a new key, remove the line from {path.name} and pin again.",
        )
    write_peers(paths, {**pinned, name: found})
    return found


def write_peers(paths: SitePaths, peers: dict[str, PublicKey]) -> None:
    """Write the pinned keys, whole."""
    lines = yaml.safe_dump({name: peers[name].text for name in sorted(peers)}) if peers else ""
    write_durably(peers_path(paths), (HEADER + lines).encode())


def fingerprint(key: PublicKey) -> str:
    """Return the key's SHA-256 in groups that can be read aloud."""
    digits = hex_of(key.key_id)
    return " ".join(digits[start : start + GROUP_DIGITS] for start in range(0, len(digits), GROUP_DIGITS))


def _is_comment_only(path: Path) -> bool:
    return all(
        not line.strip() or line.lstrip().startswith("#") for line in path.read_text(errors="replace").split("\n")
    )


def _typed_key(own: str, name: str, key: str) -> PublicKey:
    """Judge what a person typed, before the file is looked at: the file is not to blame for it."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise SettingsError(f"{name!r} is a name that no site can have.", "Use lower-case letters, digits, hyphens.")
    if name == own:
        raise SettingsError(
            f"{name} is this hospital itself.", "Its own key needs no pin; pin those of the other hospitals."
        )
    try:
        return PublicKey.from_text(key)
    except SignatureError:
        raise SettingsError(
            "The key that was given is none.",
            f"Copy the line `key` that `wardround site peers` shows at {name}, whole. Nothing was pinned.",
        ) from None


def _name(path: Path, name: object) -> str:
    if not isinstance(name, str) or re.fullmatch(NAME_PATTERN, name) is None:
        raise SettingsError(f"{path} holds a name that no site can have.", "Use lower-case letters, digits, hyphens.")
    return name


def _key(path: Path, name: object, key: object) -> PublicKey:
    try:
        return PublicKey.from_text(str(key))
    except SignatureError as error:
        raise SettingsError(f"The key of {name} in {path} is none.", str(error)) from None
