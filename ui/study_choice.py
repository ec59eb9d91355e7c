"""Which study a page is about: kept over pages in the session, and by name in the address, which survives a reload."""

from collections.abc import Callable

import streamlit as st

from ui import markup
from ui.hub_client import HubClient
from ui.views import Study, Version
from ui.wording import NONE, clock, interval, number, words_of

KEPT = "study-name"


def choose_study(hub: HubClient, *, having: Callable[[Study], bool] = lambda study: True) -> Study | None:
    """Let the person choose among the studies that fit; None (and an empty page) if there is none."""
    studies = [study for study in hub.studies() if having(study)]
    if not studies:
        st.html(markup.empty("No study yet", "As soon as a researcher has launched one, it can be followed here."))
        return None
    by_name = {study.name: study for study in studies}
    wanted = st.query_params.get("study") or st.session_state.get(KEPT)
    running = [study.name for study in studies if study.state == "running"]
    first = wanted if wanted in by_name else (running or list(by_name))[0]
    name = st.selectbox(
        "Study",
        list(by_name),
        index=list(by_name).index(first),
        format_func=lambda key: f"{by_name[key].full_label}  ·  {words_of(by_name[key].state)}",
    )
    st.session_state[KEPT] = name
    st.query_params["study"] = name
    return by_name[name]


def choose_version(versions: list[Version], final: int | None) -> Version:
    """Let the person choose a version, newest first; the final one is chosen to begin with."""
    numbers = [version.number for version in reversed(versions)]
    by_number = {version.number: version for version in versions}

    def named(key: int) -> str:
        metrics = by_number[key].metrics
        score = "not evaluated" if metrics is None else f"{metrics.score_name} {number(metrics.score)}"
        return f"Version {key}{' (final)' if key == final else ''}  ·  {score}"

    start = numbers.index(final) if final in by_number and final is not None else 0
    return by_number[st.selectbox("Version", numbers, index=start, format_func=named)]


def local_clock(moment: float | None) -> str:
    """Return a moment in the reader's own time zone, which the browser tells."""
    return clock(moment, st.context.timezone)


def auc_cell(auc: float | None, low: float | None, high: float | None) -> str:
    """Return an AUC with its interval, as markup."""
    if auc is None:
        return NONE
    return f'{number(auc)} <span class="wr-quiet">{interval(low, high)}</span>'
