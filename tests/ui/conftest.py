"""The fake hub on a real port, and the pages run by Streamlit's own AppTest as one of its people."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import ui.app
from tests.fakes.fake_hub import FakeHub, running_fake_hub
from ui import session
from ui.settings import UiSettings

SCRIPT = Path(ui.app.__file__).parent / "pages" / "entry.py"
OpenPage = Callable[..., AppTest]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_fake_hub() as running:
        yield running
        st.cache_resource.clear()


@pytest.fixture
def open_page(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    """Return a function that opens a page as someone: `open_page("ada", "rounds")`."""

    def open_as(name: str | None, page: str = "overview") -> AppTest:
        monkeypatch.setattr(session, "browser_token", lambda: f"token-of-{name}" if name else None)
        app = AppTest.from_file(SCRIPT, default_timeout=60)
        app.secrets.update(UiSettings(hub.url).as_secrets())
        app.run()
        if page != "overview":
            app.switch_page(f"{page}.py").run()
        return app

    return open_as


def text_of(app: AppTest) -> str:
    """Return everything that a page says in HTML, Markdown and code."""
    parts = (app.main, app.sidebar)
    pieces = [str(element.proto.body) for part in parts for element in part.get("html")]
    pieces += [str(element.value) for element in (*app.markdown, *app.code)]
    return "\n".join(pieces)
