"""Parts of a page that refresh themselves, and survive a hub that is away for a moment."""

from collections.abc import Callable

import streamlit as st

from ui import markup
from ui.errors import SignedOutError, UiError
from ui.session import forget_person

REFRESH_SECONDS = 2.0


def live(show: Callable[[], None], *, every_seconds: float | None = REFRESH_SECONDS) -> None:
    """Draw `show` now and again every so many seconds; None draws once.

    Guarantee: a failing hub shows as a message in this part; the next refresh tries again.
    """

    @st.fragment(run_every=every_seconds)
    def part() -> None:
        try:
            show()
        except SignedOutError:
            forget_person()  # else the whole page would not notice, and call this part again for ever
            st.rerun()
        except UiError as error:
            st.html(markup.note("wait", error.message, error.remedy or "This page keeps trying."))

    part()


def attempt(action: Callable[[], object], done: str) -> bool:
    """Do something at the hub; tell the person how it went, and return whether it worked."""
    try:
        action()
    except SignedOutError:
        raise
    except UiError as error:
        lines = [line.strip(" -") for line in error.message.splitlines() if line.strip()]
        st.html(markup.note("bad", lines[0], error.remedy, lines[1:]))
        return False
    st.toast(done, icon=":material/check_circle:")
    return True
