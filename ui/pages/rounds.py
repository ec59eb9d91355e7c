"""Rounds: a study while it runs. Who is doing what, who is late, how good the model is, what it has cost in privacy."""

import time
from html import escape

import streamlit as st

from ui import charts, markup
from ui.live import attempt, live
from ui.readiness import readiness_facts
from ui.session import RESEARCHER, Session, require_session
from ui.study_choice import auc_cell, choose_study
from ui.used_patients import fraction_note, receipt_facts
from ui.views import Quality, Round, RoundSite, Study, StudySite
from ui.wording import (
    NONE,
    duration,
    epsilon,
    interval,
    number,
    per_unit,
    plural,
    power_of_ten,
    size,
    told_count,
    words_of,
)

ANSWERED = {"accepted", "refused"}
RATED_BY = {
    "quality": "smaller steps where the data are of poor quality",
    "updates": "smaller steps where updates pull against the others', or swing",
    "both": "smaller steps where the data are of poor quality, or updates pull against the others'",
}
STEPS = {
    ("initialise", "open"): "asked to build the first version",
    ("initialise", "delivered"): "building the first version",
    ("initialise", "accepted"): "first version built",
    ("train", "open"): "asked to train",
    ("train", "delivered"): "training",
    ("train", "accepted"): "update accepted",
    ("evaluate", "open"): "asked to evaluate",
    ("evaluate", "delivered"): "evaluating",
    ("evaluate", "accepted"): "evaluated",
}


def show() -> None:
    """Draw the page."""
    session = require_session()
    st.html(
        markup.head(
            "Rounds", "Each round sends the model to the hospitals and brings back what they learned, never an image."
        )
    )
    chosen, action = st.columns([4, 1.4], vertical_alignment="bottom")
    with chosen:
        study = choose_study(session.hub)
    if study is None:
        return
    with action:
        _steering(session, study)
    alive = study.state in {"running", "proposed"}
    live(lambda: _follow(session, study.digest, study.state), every_seconds=2.0 if alive else None)


def _follow(session: Session, digest: str, state: str) -> None:
    study, rounds = session.hub.study(digest), session.hub.rounds(digest)
    if study.state != state:
        st.rerun()  # the frame around this part depends on the state
    if study.reason:
        st.html(
            markup.note("bad" if study.state == "failed" else "info", words_of(study.state).capitalize(), study.reason)
        )
    if study.state == "proposed" or not rounds:
        _answers(study)
        return
    st.html(_figures(study, rounds))
    short = next((item for item in reversed(rounds) if item.warnings), None)
    if short is not None:
        st.html(fraction_note(short.warnings, short.number))
    st.html(_who_does_what(study, rounds[-1]))
    _charts(study, rounds)
    _history(rounds)


def _steering(session: Session, study: Study) -> None:
    if not session.may(RESEARCHER):
        return
    if study.state == "proposed":
        minimum = int(study.study.get("participants", {}).get("minimum_sites", 1))
        ready = sum(site.state == "approved" for site in study.sites) >= minimum
        reason = "Starts with the hospitals that have approved." if ready else f"Needs {plural(minimum, 'approval')}."
        if st.button("Start now", type="primary", disabled=not ready, help=reason, width="stretch"):
            attempt(lambda: session.hub.start_study(study.digest), "The study has started.")
    if study.state in {"running", "proposed"}:
        with st.popover("Stop study", width="stretch"):
            st.write("Hospitals are told to stop. Versions made so far stay; spent privacy stays spent. This is final.")
            if st.button("Stop for good", key="stop-for-good", type="primary"):
                attempt(lambda: session.hub.stop_study(study.digest), "The study is stopped.")


def _answers(study: Study) -> None:
    waits = study.state == "proposed"
    title = "Waiting for hospitals" if waits else "What the hospitals answered"
    starts = "; the study starts by itself once all have answered" if waits else ""
    st.html(markup.section(title, f"Each decides by its own policy{starts}."))
    names = [site.site for site in study.sites]
    silent = "No answer yet" if study.state in {"proposed", "running"} else "The study ended before it answered"
    st.html(markup.grid(_answer_card(site, names, silent, noised=_are_noised(study)) for site in study.sites))


def _are_noised(study: Study) -> bool:
    """Tell whether the hospitals told noised numbers of training patients."""
    return (study.study.get("privacy") or {}).get("count_epsilon") is not None


def _answer_card(site: StudySite, names: list[str], silent: str, *, noised: bool) -> str:
    if site.state == "approved":
        trains = site.training_patients != 0  # a small number is hidden, and is not none
        text = f"{told_count(site.training_patients, noised=noised)} training patients" if trains else "evaluates only"
    else:
        text = words_of(site.reason).capitalize() if site.reason else silent
    body = f'<div class="wr-quiet">{escape(text)}</div>'
    body += "" if site.readiness is None else readiness_facts(site.readiness)
    return markup.card(site.site, markup.dot(markup.colour_of(site.site, names)), markup.pill(site.state), body)


def _figures(study: Study, rounds: list[Round]) -> str:
    scored = [item for item in rounds if item.metrics and item.metrics.score is not None]
    last = scored[-1].metrics if scored else None
    spent, target = study.privacy.epsilon, study.privacy.epsilon_target
    moved = sum(item.bytes_up for item in rounds)
    fetched = sum(item.bytes_down for item in rounds)
    auc = "interval " + interval(last.score_low, last.score_high) if last else "after the first round"
    private = (
        f"promised: at most {target:g} at δ = {power_of_ten(study.privacy.delta)}"
        if target is not None and study.privacy.delta
        else ""
    )
    return markup.tiles(
        (
            markup.tile("Round", str(rounds[-1].number), words_of(rounds[-1].state), f"of {study.rounds_planned}"),
            markup.tile(f"{last.score_name if last else 'AUC'}, pooled", number(last.score) if last else NONE, auc),
            markup.tile(f"Privacy spent, {per_unit(study.privacy.unit)}", "off" if target is None else
                        f"ε {epsilon(spent or 0.0)}", private or "no differential privacy"),
            markup.tile("Left the hospitals", size(moved), f"{size(fetched)} fetched by them"),
        )
    )  # fmt: skip


def _who_does_what(study: Study, current: Round) -> str:
    names = [site.site for site in study.sites]
    now = time.time()
    over = current.ended_at is None and current.deadline_at is not None and now > current.deadline_at
    if current.ended_at is not None:
        when = f"took {duration(current.seconds)}"
    elif over:
        late = duration(now - (current.deadline_at or now))
        when = f"deadline passed {late} ago; closes as soon as enough hospitals have answered"
    else:
        learned = ", by the hospitals' usual times" if current.deadline_learned else ""
        when = f"closes in {duration((current.deadline_at or now) - now)} at the latest{learned}"
    noised = _are_noised(study)
    cards = [_site_card(site, names, over, current, noised=noised) for site in current.sites]
    body = markup.grid(cards) if cards else '<div class="wr-quiet">A hospital is being asked.</div>'
    if current.reason and current.reason not in (study.reason or ""):
        body = f'<div class="wr-quiet">{escape(current.reason)}</div>{body}'
    title = markup.section(f"Round {current.number}: {words_of(current.state)}", when)
    return f'{title}<div class="wr-under">{body}</div>'


def _site_card(site: RoundSite, names: list[str], over: bool, current: Round, *, noised: bool) -> str:
    state = site.evaluate_state or site.train_state
    late = over and state not in ANSWERED
    share = 1.0 if state == "accepted" else site.fraction or 0.0
    facts = markup.facts(
        [
            ("training patients", told_count(site.patients, noised=noised)),
            ("ε spent", NONE if site.epsilon is None else epsilon(site.epsilon)),
            ("update", size(site.update_bytes)),
            ("sent in all", size(site.bytes_up or 0)),
            ("fetched", size(site.bytes_down or 0)),
            *receipt_facts(site.receipt),
            *_pace(site),
            *_rate(site),
        ]
    )
    tone = "done" if state == "accepted" else "late" if late else ""
    line = markup.ends(_doing(site, current), f"{100 * share:.0f} %")
    sign = markup.dot(markup.colour_of(site.site, names))
    return markup.card(site.site, sign, _badge(site, state, late), line + markup.bar(share, tone) + facts)


def _pace(site: RoundSite) -> list[tuple[str, str]]:
    """Return what is known of a hospital's pace: its usual time, and how old the version was that it trained on."""
    found = [] if site.usual_seconds is None else [("usually takes", duration(site.usual_seconds))]
    return [*found, ("versions behind", str(site.staleness))] if site.staleness else found


def _rate(site: RoundSite) -> list[tuple[str, str]]:
    """Return what is known of a hospital's own learning rate, and of what it is made."""
    found = [] if site.rate_factor is None else [("learning rate", f"{site.rate_factor:.2f} times")]
    parts = site.rate_parts
    if parts is None:
        return found
    named = (("data quality", parts.quality), ("agrees with others", parts.agreement), ("keeps its way", parts.trend))
    return [*found, *((name, f"{value:.2f}") for name, value in named if value is not None)]


def _badge(site: RoundSite, state: str | None, late: bool) -> str:
    if late:
        return markup.pill("late", "late")
    if state == "delivered":
        return markup.pill(site.activity or state)
    return markup.pill(state, "done" if state == "accepted" else None)


def _doing(site: RoundSite, current: Round) -> str:
    if _own_reason(site, current):
        words = words_of(site.reason)
    elif site.reason:
        words = "the round ended before its answer"  # why, is said once, above
    elif site.evaluate_state:
        words = STEPS.get(("evaluate", site.evaluate_state), words_of(site.evaluate_state))
    else:
        kind = "train" if current.number else "initialise"
        words = STEPS.get((kind, site.train_state or ""), words_of(site.train_state))
        if site.task_round is not None and site.task_round < current.number:
            words = f"{words}, for round {site.task_round}"
    return words[:1].upper() + words[1:]


def _own_reason(site: RoundSite, item: Round) -> bool:
    """Tell whether a hospital's reason is its own, and not the one for which the whole round ended."""
    return bool(site.reason) and site.reason != item.reason


def _charts(study: Study, rounds: list[Round]) -> None:
    names = [site.site for site in study.sites]
    seen = sorted({site.site for item in rounds for site in item.sites}, key=names.index)
    has_scores = any(item.metrics for item in rounds)
    left, right = st.columns([1.75, 1], gap="small")
    with left, st.container(key="card-auc", height="stretch"):
        st.html(markup.section("How good is the model?", _held_out(rounds)))
        if has_scores:
            st.plotly_chart(charts.auc_by_round(rounds, seen, names), key="auc", config=charts.CONFIG, theme=None)
        else:
            st.html(markup.empty("No version evaluated yet", "The first figures come at the end of the first round."))
    with right, st.container(key="card-epsilon"):
        st.html(markup.section("What has it cost in privacy?"))
        _epsilon_chart(study, rounds)
    _rates_chart(study, rounds, seen, names)
    with st.container(key="card-traffic"):
        travelled = "versions of the model to the hospitals; updates and held-out counts back; never an image"
        st.html(markup.section("What travelled?", travelled))
        st.plotly_chart(charts.traffic_by_round(rounds), key="traffic", config=charts.CONFIG, theme=None)


def _rates_chart(study: Study, rounds: list[Round], seen: list[str], names: list[str]) -> None:
    adapt = (study.study.get("site_rates") or {}).get("adapt", "none")
    if adapt == "none":
        return
    noised = adapt == "quality" or study.privacy.epsilon_target is not None
    why = f"{RATED_BY[adapt]}; {'noised before it leaves' if noised else 'updates un-noised: no differential privacy'}"
    with st.container(key="card-rates"):
        st.html(markup.section("How fast does each hospital learn?", why))
        st.plotly_chart(charts.rates_by_round(rounds, seen, names), key="rates", config=charts.CONFIG, theme=None)
        told = [site for site in study.sites if site.quality is not None]
        if told:
            heads = ["Hospital", "Training patients", "Positive", "With a damaged image", "With an image twice"]
            rows = [_quality_row(site, noised=_are_noised(study)) for site in told]
            st.html(markup.table(heads, rows, numeric=(1, 2, 3, 4)))


def _quality_row(site: StudySite, *, noised: bool) -> list[str]:
    figures = site.quality or Quality()
    told = (figures.positive, figures.unreadable, figures.repeated)
    about = "" if figures.noise_epsilon is None else "about "
    hidden = "too few to show"
    cells = [hidden if value is None else f"{about}{value}" for value in told]
    return [escape(site.site), told_count(site.training_patients, noised=noised), *cells]


def _held_out(rounds: list[Round]) -> str:
    scored = [item.metrics for item in rounds if item.metrics]
    return scored[-1].privacy if scored else ""


def _epsilon_chart(study: Study, rounds: list[Round]) -> None:
    target = study.privacy.epsilon_target
    if target is None:
        text = "This study runs without differential privacy. Every hospital saw that before it approved."
        st.html(markup.note("wait", "No differential privacy", text))
        return
    points = [(0, 0.0)] + [(item.number, item.epsilon) for item in rounds if item.epsilon is not None]
    figure = charts.epsilon_by_round([x for x, _ in points], [y for _, y in points], target, study.rounds_planned)
    figure.update_layout(height=340)
    st.plotly_chart(figure, key="epsilon", config=charts.CONFIG, theme=None)


def _history(rounds: list[Round]) -> None:
    with st.container(key="card-history"):
        st.html(markup.section("All rounds", "newest first"))
        st.html(
            markup.table(
                ["Round", "State", "AUC, pooled", "Hospitals answered", "ε after it", "Sent", "Fetched", "Took"],
                [_history_row(item) for item in reversed(rounds)],
                numeric=(0, 4, 5, 6, 7),
            )
        )


def _unjudged(item: Round) -> str:
    reason = item.reason if item.state == "complete" else ""
    return f'{NONE} <span class="wr-quiet">{escape(reason)}</span>' if reason else NONE


def _history_row(item: Round) -> list[str]:
    metrics = item.metrics
    asked = [site for site in item.sites if site.train_state]  # others evaluate; in round 0 one site builds
    counted = sum(site.train_state == "accepted" for site in asked)
    missing = [f"{site.site}: {words_of(site.reason)}" for site in item.sites if _own_reason(site, item)]
    missing = missing or ([item.reason] if item.reason and item.state == "failed" else [])
    answered = f"{counted} of {len(asked)}" if asked else NONE
    if item.warnings:
        answered += f' <span class="wr-warn" title="{escape("; ".join(item.warnings))}">(on a fraction)</span>'
    if missing:
        answered += f' <span class="wr-warn" title="{escape("; ".join(missing))}">({escape(missing[0])})</span>'
    return [
        str(item.number),
        markup.pill(item.state),
        auc_cell(metrics.score, metrics.score_low, metrics.score_high) if metrics else _unjudged(item),
        answered,
        epsilon(item.epsilon) if item.epsilon is not None else NONE,
        size(item.bytes_up),
        size(item.bytes_down),
        duration(item.seconds),
    ]


if __name__ == "__main__":
    show()
