"""The UI's process: Streamlit's ASGI app with the sign-in routes, on a port that is really free.

The socket is bound here and handed to uvicorn, so that nobody takes the port between looking and listening, and so that
Streamlit's own runner (which asks an outside service for this machine's address to print it) is not needed.
"""

import contextlib
import socket
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from starlette.middleware import Middleware
from streamlit.web import bootstrap

from ui.errors import PortError
from ui.settings import UiSettings
from ui.sign_in import Doorkeeper, sign_in_routes
from ui.site_sign_in import site_sign_in_routes

PORTS_TRIED = 200
SCRIPT = Path(__file__).parent / "pages" / "entry.py"


def listen(host: str, port: int, *, strict: bool) -> socket.socket:
    """Return a listening socket on `port`, or on the next free one unless `strict`.

    Raises: PortError if none is free.
    """
    for candidate in [port] if strict or port == 0 else range(port, min(port + PORTS_TRIED, 65536)):
        listener = _bind(host, candidate)
        if listener is not None:
            return listener
    raise PortError(
        f"Port {port} on {host} is taken{'' if strict else ', and so are those after it'}.",
        "Choose another with --port" + (", or leave out --port-strict." if strict else "."),
    )


def build_app(settings: UiSettings) -> st.App:
    """Return the ASGI app: Streamlit's, behind the doorkeeper, beside the sign-in routes."""
    bootstrap.load_config_options(streamlit_options(settings))
    return st.App(
        SCRIPT,
        secrets=settings.as_secrets(),
        routes=site_sign_in_routes(settings) if settings.site_url else sign_in_routes(settings),
        middleware=[Middleware(Doorkeeper, cookie_name=settings.cookie_name)],
    )


def serve(settings: UiSettings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down in order and then raises it again
        uvicorn.Server(config).run(sockets=[listener])


def streamlit_options(settings: UiSettings) -> dict[str, Any]:
    """Return Streamlit's options by dotted name: the theme's file, then the address."""
    tree = tomllib.loads((files("ui") / "theme" / "config.toml").read_text(encoding="utf-8"))
    options = _dotted(tree)
    return options | {"server.address": settings.host, "server.port": settings.port}


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _bind(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        return None
    return listener
