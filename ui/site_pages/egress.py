"""What left: every message that this hospital sent, as its own ledger recorded it before a byte went out."""

from html import escape

import streamlit as st

from ui import markup
from ui.site_session import require_site_session
from ui.site_views import EgressEntry
from ui.study_choice import local_clock
from ui.wording import plural, size

SHOWN_AT_FIRST = 100
SHOWN = "egress-shown"


def show() -> None:
    """Draw the page."""
    entries = require_site_session().site.egress()
    st.html(
        markup.head("What left", "Every message to the hub, written down before it could leave. Nothing else leaves.")
    )
    if not entries:
        st.html(markup.empty("Nothing has left yet", "The first message is this hospital's answer to a study."))
        return
    kinds = st.multiselect(
        "Kind", sorted({entry.kind for entry in entries}), format_func=_words, placeholder="every kind"
    )
    found = [entry for entry in reversed(entries) if not kinds or entry.kind in kinds]
    total = sum(entry.size for entry in found)
    shown = st.session_state.get(SHOWN, SHOWN_AT_FIRST)
    with st.container(key="card-egress"):
        st.html(markup.section(plural(len(found), "message"), f"{size(total)} in all, newest first; hash-linked"))
        columns = ["No.", "When", "What", "Size", "Digest", "The hub"]
        st.html(markup.table(columns, [_row(entry) for entry in found[:shown]], numeric=(0, 3)))
        if len(found) > shown and st.button(f"Show older ({len(found) - shown})", icon=":material/expand_more:"):
            st.session_state[SHOWN] = shown + 5 * SHOWN_AT_FIRST
            st.rerun()


def _row(entry: EgressEntry) -> list[str]:
    return [
        f'<span class="wr-quiet">{entry.number}</span>',
        local_clock(entry.time),
        f"<b>{escape(_words(entry.kind))}</b>",
        size(entry.size),
        markup.digest(entry.message_digest),
        _answer(entry),
    ]


def _answer(entry: EgressEntry) -> str:
    if entry.receipt is None:
        return markup.pill("waiting", "no answer yet")
    if entry.receipt["accepted"]:
        return markup.pill("accepted")
    return markup.pill("rejected", str(entry.receipt["reason"] or "not taken"))


def _words(kind: str) -> str:
    return kind.removeprefix("wardround.").partition("/")[0].replace("-", " ").replace("_", " ")


if __name__ == "__main__":
    show()
