"""The hub's settings: one frozen value, read at the entry point and handed down. Nobody else reads the environment.

A hub's folder holds `hub.yaml` (what an operator may change), `hub.key` (signs tasks, receipts, lineage, audit heads),
`token.key` (signs short-lived tokens), `blobs/`, `uploads/` and, unless PostgreSQL is named, `hub.sqlite`.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from hub.errors import SettingsError
from protocol.keeping import LASTING, Keeping

DEFAULT_PORT = 8440
TOKEN_KEY_BYTES = 32
SECRET_SECONDS = 1.0
SETTINGS_FILE = "hub.yaml"
_KEYS = {"database_url": str, "redis_url": str, "host": str, "port": int}


@dataclass(frozen=True)
class Settings:
    """Where the hub lives and listens. An empty `database_url` means SQLite in the folder."""

    dir: Path
    database_url: str = ""
    redis_url: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    clock: Callable[[], float] = time.time
    keeping: Keeping = LASTING
    """Another one only in a simulation; `hub.yaml` cannot name it."""

    @property
    def database(self) -> str:
        """Return the database's URL, as SQLAlchemy writes it."""
        return self.database_url or f"sqlite:///{self.dir / 'hub.sqlite'}"

    @property
    def blobs(self) -> Path:
        """Return the folder of the content-addressed store."""
        return self.dir / "blobs"

    @property
    def uploads(self) -> Path:
        """Return the folder of transfers that have not arrived whole."""
        return self.dir / "uploads"

    @property
    def key_file(self) -> Path:
        """Return the file of the hub's signing key."""
        return self.dir / "hub.key"

    @property
    def token_key_file(self) -> Path:
        """Return the file of the secret that signs tokens."""
        return self.dir / "token.key"


def load_settings(folder: Path, **overrides: Any) -> Settings:
    """Read `hub.yaml` of a hub's folder; overrides that are not None win.

    Raises: SettingsError if the file is not a mapping of known keys.
    """
    path = folder / SETTINGS_FILE
    written = _read(path) if path.exists() else {}
    chosen = {**written, **{key: value for key, value in overrides.items() if value is not None}}
    return replace(Settings(dir=folder.resolve()), **chosen)


def write_settings(settings: Settings) -> Path:
    """Write `hub.yaml`, unless there is one, and return its path."""
    path = settings.dir / SETTINGS_FILE
    if not path.exists():
        chosen = {key: getattr(settings, key) for key in _KEYS if getattr(settings, key)}
        path.write_text("# Settings of this hub; options of `wardround hub serve` win.\n" + yaml.safe_dump(chosen))
    return path


def token_secret(settings: Settings) -> bytes:
    """Return the secret that signs tokens; one that only its owner can read is made if there is none.

    The file is read once a second at most, not for each request: each read would hand the interpreter to the threads
    that write and wait for it to come back. A secret that was replaced counts within that second.
    """
    return _secret_of(settings.dir, int(time.monotonic() / SECRET_SECONDS))


@lru_cache(maxsize=8)
def _secret_of(folder: Path, _moment: int) -> bytes:
    path = Settings(dir=folder).token_key_file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(TOKEN_KEY_BYTES))
    return path.read_bytes()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read as YAML.", "Correct it, or remove it to use the defaults."
        ) from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must be a mapping of keys.", f"The keys are {', '.join(_KEYS)}.")
    for key, value in data.items():
        if not isinstance(value, _KEYS.get(key, ())):
            raise SettingsError(f"{path}: {key!r} is not a setting, or not of its type.", f"Known: {', '.join(_KEYS)}.")
    return data
