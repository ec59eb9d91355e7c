"""Audit: what happened, in order, hash-linked, with a button that lets the hub prove it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import streamlit as st

from ui import markup
from ui.hub_client import AUDIT_MOST_ENTRIES
from ui.live import attempt
from ui.session import Session, require_session
from ui.study_choice import local_clock
from ui.views import AuditEntry, AuditHead, AuditPage
from ui.wording import plural, short_digest

VERDICT, SHOWN = "audit-verdict", "audit-shown"
SHOWN_AT_FIRST = 40
EMPTY: tuple[object, ...] = (None, "", [], {})


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
    cut = head is not None and head.size > AUDIT_MOST_ENTRIES
    note = f"newest first, out of the newest {AUDIT_MOST_ENTRIES} lines of the log" if cut else "newest first"
    left.html(markup.section(plural(len(entries), "entry", "entries"), note))
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
    st.html(markup.table(columns, [_row(entry) for entry in entries[:shown]], numeric=(0,), kind="wr-log"))
    if len(entries) > shown and st.button(f"Show older ({len(entries) - shown})", icon=":material/expand_more:"):
        st.session_state[SHOWN] = shown + 5 * SHOWN_AT_FIRST
        st.rerun()


def _row(entry: AuditEntry) -> list[str]:
    return [
        f'<span class="wr-quiet">{entry.number}</span>',
        local_clock(entry.time),
        _breakable(entry.actor),
        f"<b>{escape(_plain(entry.action))}</b>",
        markup.digest(entry.subject) if entry.subject.startswith("sha256:") else _breakable(entry.subject),
        details_markup(entry.details),
        markup.digest(entry.hash),
    ]


def details_markup(details: Any) -> str:
    """Return an entry's details as names and values, nested ones indented; what is empty is left out."""
    if not isinstance(details, Mapping):
        return _value("", details)
    told = [(str(key), value) for key, value in details.items() if value not in EMPTY]
    return " ".join(
        f'<span class="wr-detail"><span class="wr-quiet">{escape(_plain(key))}</span> {_value(key, value)}</span>'
        for key, value in told
    )


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f'<span class="wr-item">{details_markup(value)}</span>'
    if isinstance(value, list):
        separator = "" if any(isinstance(item, Mapping) for item in value) else ", "
        return separator.join(_value(key, item) for item in value)
    if isinstance(value, str):
        return markup.digest(value) if value.startswith("sha256:") else escape(value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if key.endswith("_at"):
        return escape(local_clock(float(value)))
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _breakable(name: str) -> str:
    return escape(name).replace(":", ":<wbr>").replace(".", ".<wbr>")


def _plain(word: str) -> str:
    return word.replace(".", " ").replace("_", " ").replace("-", " ")


def _text_of(entry: AuditEntry) -> str:
    return f"{entry.actor} {entry.action} {entry.subject} {entry.hash} {json.dumps(entry.details)}".lower()


if __name__ == "__main__":
    show()
