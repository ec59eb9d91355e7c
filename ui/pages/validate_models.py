"""Validate: is this version right on patients like mine? Figures per hospital with intervals; a recorded decision."""

from html import escape

import streamlit as st

from ui import charts, class_choice, markup, patient_figures
from ui.live import attempt
from ui.session import CLINICIAN, Session, require_session
from ui.study_choice import auc_cell, choose_study, choose_version, local_clock
from ui.views import Curves, Decision, Metrics, Study, Validation, Version
from ui.wording import count, interval, number, percent, plural

ALL_SPLITS = "all held-out patients"
DECISIONS = {"accepted": "Accept", "rejected": "Reject"}


def show() -> None:
    """Draw the page."""
    session = require_session()
    st.html(markup.head("Validate", "How a version does on patients it has never seen, hospital by hospital."))
    left, right = st.columns([3, 2])
    with left:
        study = choose_study(session.hub, having=lambda item: item.state != "proposed")
    if study is None:
        return
    versions = session.hub.versions(study.digest)
    judged = [version for version in versions if version.metrics is not None]
    if not judged:
        st.html(markup.empty("No version evaluated yet", "The first figures come at the end of the first round."))
        return
    with right:
        chosen = choose_version(judged, study.final_version)
    _version_page(session, study, session.hub.version(study.digest, chosen.number))


def _version_page(session: Session, study: Study, version: Version) -> None:
    found = version.validation
    pooled: Metrics | None = (found.pooled if found else None) or version.metrics
    if pooled is None:
        return
    st.html(_privacy_note(pooled, study.privacy.epsilon_target))
    if study.judges_personal_models:
        st.html(markup.note("info", "Personal models", PERSONAL_MODELS))
    chosen = class_choice.choose_class(study, found) if found is not None else None
    if chosen is not None and chosen.pooled is not None:
        found = chosen
        pooled = chosen.pooled
    st.html(_tiles(study, pooled))
    if found is not None:
        _hospitals(study, found)
        if pooled.figure is None and not pooled.classes:
            _curves(study, found)
    _decisions(session, study, version)


def _tiles(study: Study, pooled: Metrics) -> str:
    if pooled.classes:
        return class_choice.tiles(pooled)
    return _figures(pooled) if pooled.figure is None else patient_figures.tiles(study, pooled)


PERSONAL_MODELS = (
    "Each hospital judged its own model on its own patients: this version with what the study lets it keep. These "
    "figures say how well the hospitals are served, not how well the version alone does elsewhere. A hospital that has "
    "not trained judged the version itself; one whose personal model diverged judged nothing, as the rounds page says."
)
UNDER_MASKS = "summed under masks"
NO_HOSPITALS = (
    "The hospitals' counts were summed under masks: this hub opened their sum and holds no single hospital's, so there "
    "are no figures of one hospital."
)


def _privacy_note(pooled: Metrics, promised: float | None) -> str:
    if pooled.noise_epsilon is not None:
        text = (
            f"Each evaluation's histograms carry noise of ε = {pooled.noise_epsilon:g}; the figures wobble accordingly."
        )
        return markup.note("info", "Held-out patients: noised", text)
    training = "ran without differential privacy" if promised is None else "is private to the promised ε"
    text = (
        f"Training {training}. These figures are not noised: they are sums over patients held out of training, and "
        "counts below five are hidden."
    )
    return markup.note("info", (pooled.privacy or "held-out patients: no DP").capitalize().replace("dp", "DP"), text)


def _figures(pooled: Metrics) -> str:
    return markup.tiles(
        (
            markup.tile(pooled.score_name, number(pooled.score), _of_score(pooled)),
            markup.tile("Sensitivity", percent(pooled.sensitivity), "at a score of 0.5"),
            markup.tile("Specificity", percent(pooled.specificity), "at a score of 0.5"),
            markup.tile("Brier score", number(pooled.brier), f"calibration error {number(pooled.ece)}"),
            markup.tile("Held-out patients", count(pooled.patients), f"{count(pooled.positives)} with the finding"),
        )
    )


def _of_score(pooled: Metrics) -> str:
    if pooled.concordance is not None:
        return "pairs of patients of one hospital in the right order"
    return "interval " + interval(pooled.score_low, pooled.score_high)


def _hospitals(study: Study, found: Validation) -> None:
    names = [site.site for site in study.sites]
    shown = [*found.sites, found.pooled] if found.pooled is not None else found.sites
    splits = sorted({split for curves in shown for split in curves.by_split}, reverse=True)
    if found.pooled is not None and found.pooled.counts == UNDER_MASKS:
        st.html(markup.note("info", "Pooled figures only", NO_HOSPITALS))
    with st.container(key="card-forest"):
        title, choice = st.columns([1.6, 1], vertical_alignment="center")
        title.html(
            markup.section("Does it hold everywhere?", "each hospital's own patients")
            if found.sites
            else markup.section("Does it hold?", "the patients of all hospitals together")
        )
        split = choice.segmented_control(
            "Patients", [ALL_SPLITS, *splits], default=ALL_SPLITS, required=True, label_visibility="collapsed"
        )
        rows = [(curves.site, of_split(curves, split)) for curves in found.sites]
        pooled = of_split(found.pooled, split) if found.pooled else None
        st.plotly_chart(charts.forest(pooled, rows, names), key="forest", config=charts.CONFIG, theme=None)
        of_figures = pooled is not None and pooled.figure is not None
        st.html(patient_figures.table(study, rows, pooled, names) if of_figures else _table(rows, pooled, names))


def of_split(curves: Curves, split: str | None) -> Metrics:
    """Return the metrics on one split, or on all held-out patients."""
    return curves if split in {None, ALL_SPLITS} else curves.by_split.get(str(split), Metrics())


def _table(rows: list[tuple[str, Metrics]], pooled: Metrics | None, names: list[str]) -> str:
    lines = [[markup.named_site(name, markup.colour_of(name, names)), *_cells(metrics)] for name, metrics in rows]
    if pooled is not None:
        lines.append(["all hospitals", *_cells(pooled)])
    columns = [
        "Hospital",
        "Patients",
        "With finding",
        "AUC",
        "Sensitivity",
        "Specificity",
        "Brier",
        "Calibration error",
    ]
    return markup.table(columns, lines, numeric=(1, 2, 4, 5, 6, 7), strong=len(rows) if pooled else -1)


def _cells(metrics: Metrics) -> list[str]:
    return [
        escape(count(metrics.patients)),
        escape(count(metrics.positives)),
        auc_cell(metrics.score, metrics.score_low, metrics.score_high),
        percent(metrics.sensitivity),
        percent(metrics.specificity),
        number(metrics.brier),
        number(metrics.ece),
    ]


def _curves(study: Study, found: Validation) -> None:
    names = [site.site for site in study.sites]
    left, right = st.columns(2, gap="small")
    with left, st.container(key="card-roc"):
        st.html(markup.section("Does it rank patients well?", "ROC"))
        st.plotly_chart(charts.roc(found.pooled, found.sites, names), key="roc", config=charts.CONFIG, theme=None)
    with right, st.container(key="card-calibration"):
        st.html(markup.section("Can its scores be taken literally?", "calibration"))
        st.plotly_chart(charts.calibration(found.pooled), key="calibration", config=charts.CONFIG, theme=None)


def _decisions(session: Session, study: Study, version: Version) -> None:
    with st.container(key="card-decisions"):
        note = plural(len(version.decisions), "decision") if version.decisions else "none recorded yet"
        st.html(markup.section(f"Decisions about version {version.number}", note))
        for decision in version.decisions:
            st.html(_decision(decision))
        if session.may(CLINICIAN):
            _decision_form(session, study, version)
        elif not version.decisions:
            st.html(
                '<div class="wr-quiet">Clinicians record here whether the version may be used further, and why.</div>'
            )


def _decision(decision: Decision) -> str:
    return (
        f'<div style="display:flex;gap:.8rem;align-items:baseline;padding:.35rem 0">{markup.pill(decision.decision)}'
        f"<div>{escape(decision.comment)}<div class='wr-quiet'>{escape(decision.person)}, "
        f"{local_clock(decision.decided_at)}</div></div></div>"
    )


def _decision_form(session: Session, study: Study, version: Version) -> None:
    with st.form(f"decision-{version.number}", border=False, clear_on_submit=True):
        comment = st.text_area(
            "Your reasons (needed)",
            placeholder="What did you look at, and what convinced you or did not?",
            max_chars=2000,
            height=90,
        )
        accept, reject, _ = st.columns([1, 1, 4])
        accepted = accept.form_submit_button("Accept", type="primary", icon=":material/check:", width="stretch")
        rejected = reject.form_submit_button("Reject", icon=":material/close:", width="stretch")
    if not (accepted or rejected):
        return
    if not comment.strip():
        st.html(
            markup.note(
                "wait", "Please say why", "The reasons are kept with the decision; the audit log holds their digest."
            )
        )
        return
    decision = "accepted" if accepted else "rejected"
    if attempt(
        lambda: session.hub.decide(study.digest, version.number, decision, comment.strip()), "Decision recorded."
    ):
        st.rerun()


if __name__ == "__main__":
    show()
