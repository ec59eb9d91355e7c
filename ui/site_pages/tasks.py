"""Tasks: what the hub asked of this hospital, and what became of it."""

from html import escape

import streamlit as st

from ui import markup
from ui.live import live
from ui.site_session import SiteSession, require_site_session
from ui.site_views import SiteTask, TaskEntry
from ui.study_choice import local_clock
from ui.wording import plural, words_of

MOST_SHOWN = 200
REFRESH_SECONDS = 5.0


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    st.html(markup.head("Tasks", "What the hub asked of this hospital: to count, to train, to judge a version."))
    live(lambda: _tasks(session), every_seconds=REFRESH_SECONDS)


def _tasks(session: SiteSession) -> None:
    standing, tasks = session.site.standing(), session.site.tasks()
    if standing.tasks:
        st.html(markup.section("Now"))
        st.html(markup.grid(_card(task) for task in standing.tasks))
    if not tasks:
        st.html(markup.empty("No task yet", "Tasks come once a study is approved and its rounds begin."))
        return
    with st.container(key="card-tasks"):
        st.html(markup.section(plural(len(tasks), "task"), "newest first"))
        rows = [_row(task) for task in reversed(tasks[-MOST_SHOWN:])]
        st.html(markup.table(["Task", "Came", "State", "Why"], rows))


def _card(task: SiteTask) -> str:
    doing = words_of(task.activity).capitalize() if task.activity else "Waits"
    share = "" if task.fraction is None else f"{100 * task.fraction:.0f} %"
    return markup.card(
        task.task_id, markup.HOUSE, markup.pill(task.state), markup.ends(doing, share) + markup.bar(task.fraction)
    )


def _row(task: TaskEntry) -> list[str]:
    why = escape(words_of(task.reason)) if task.reason else ""
    return [escape(task.task_id), local_clock(task.received_at), markup.pill(task.state), why]


if __name__ == "__main__":
    show()
