"""Audit: what happened, in order, hash-linked, with a button that lets the hub prove it."""

import json
from html import escape
from typing import Any

import streamlit as st

from ui import markup
from ui.live import attempt
from ui.session import Session, require_session
from ui.study_choice import local_clock
from ui.views import AuditEntry, AuditHead, AuditPage
from ui.wording import plural, short_digest

VERDICT, SHOWN = "audit-verdict", "audit-shown"
SHOWN_AT_FIRST = 40


def show() -> None:
    """Draw the page."""
    session = require_session()
    title, button = st.columns([4, 1.2], vertical_alignment="bottom")
    title.html(markup.head("Audit log", "Every decision and every change, each line linked to the one before it."))
    if button.button("Verify the log", type="primary", icon=":material/verified_user:", width="stretch"):
        attempt(lambda: _verify(session), "Verification has run.")
    _verdict()
    log = session.hub.audit()
    if not log.entries:
        text = "The first entry is written when the first person or hospital is added."
        st.html(markup.empty("Nothing has happened yet", text))
        return
    found = _filtered(log)
    with st.container(key="card-log"):
        _list(found, log.head)


def _verify(session: Session) -> None:
    st.session_state[VERDICT] = session.hub.verify_audit()


def _verdict() -> None:
    verdict = st.session_state.pop(VERDICT, None)
    if verdict is None:
        return
    if verdict.ok:
        amount = plural(verdict.entries, "entry", "entries")
        text = f"The hub has recomputed {amount}, up to the head {short_digest(verdict.head)}. Nothing was rewritten."
        st.html(markup.note("good", "The log is whole", text))
    else:
        remedy = "Stop changing things, keep a copy of the database, and compare with the heads that hospitals keep."
        st.html(markup.note("bad", "The log does not verify", f"{verdict.problem} {remedy}"))


def _filtered(log: AuditPage) -> list[AuditEntry]:
    words, actions, actors = st.columns([2, 2, 1.4])
    sought = words.text_input("Search", placeholder="subject, detail or digest", icon=":material/search:")
    kinds = actions.multiselect(
        "What", sorted({e.action for e in log.entries}), format_func=_plain, placeholder="everything"
    )
    people = actors.multiselect("Who", sorted({e.actor for e in log.entries}), placeholder="everyone")
    return [
        entry
        for entry in reversed(log.entries)
        if (not kinds or entry.action in kinds)
        and (not people or entry.actor in people)
        and sought.strip().lower() in _text_of(entry)
    ]


def _list(entries: list[AuditEntry], head: AuditHead | None) -> None:
    if not entries:
        st.html(markup.empty("Nothing matches", "Loosen the filter above."))
        return
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.html(markup.section(plural(len(entries), "entry", "entries"), "newest first"))
    if head is not None:
        right.download_button(
            "Signed head",
            head.envelope,
            file_name=f"wardround-audit-head-{head.size}.dsse.json",
            help="The hub's signature over all entries so far. Kept, it proves later that nothing was changed.",
            icon=":material/download:",
            on_click="ignore",
            width="stretch",
        )
    shown = st.session_state.get(SHOWN, SHOWN_AT_FIRST)
    columns = ["No.", "When", "Who", "What", "About", "Details", "Hash"]
    st.html(markup.table(columns, [_row(entry) for entry in entries[:shown]], numeric=(0,)))
    if len(entries) > shown and st.button(f"Show older ({len(entries) - shown})", icon=":material/expand_more:"):
        st.session_state[SHOWN] = shown + 5 * SHOWN_AT_FIRST
        st.rerun()


def _row(entry: AuditEntry) -> list[str]:
    return [
        f'<span class="wr-quiet">{entry.number}</span>',
        f'<span style="white-space:nowrap">{local_clock(entry.time)}</span>',
        escape(entry.actor),
        f"<b>{escape(_plain(entry.action))}</b>",
        markup.digest(entry.subject) if entry.subject.startswith("sha256:") else escape(entry.subject),
        _details(entry.details),
        markup.digest(entry.hash),
    ]


def _details(details: Any) -> str:
    if not isinstance(details, dict):
        return escape(str(details or ""))
    return " ".join(_detail(str(key), value) for key, value in details.items() if value not in (None, ""))


def _detail(key: str, value: Any) -> str:
    if isinstance(value, str) and value.startswith("sha256:"):
        shown = markup.digest(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = escape(text if len(text) <= 60 else text[:57] + "…")
    return f'<span class="wr-detail"><span class="wr-quiet">{escape(_plain(key))}</span> {shown}</span>'


def _plain(word: str) -> str:
    return word.replace(".", " ").replace("_", " ").replace("-", " ")


def _text_of(entry: AuditEntry) -> str:
    return f"{entry.actor} {entry.action} {entry.subject} {entry.hash} {json.dumps(entry.details)}".lower()


if __name__ == "__main__":
    show()
