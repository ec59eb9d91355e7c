"""Versions: every model of a study, where it came from, what it cost in privacy and what was decided about it."""

import json
from html import escape

import streamlit as st

from ui import charts, markup
from ui.session import require_session
from ui.study_choice import auc_cell, choose_study, choose_version, local_clock
from ui.used_patients import fraction_mark
from ui.views import Study, Version, VersionParticipant
from ui.wording import NONE, epsilon, per_unit, size


def show() -> None:
    """Draw the page."""
    session = require_session()
    st.html(markup.head("Versions", "Each version names its parents and the hospitals whose updates are in it."))
    study = choose_study(session.hub, having=lambda item: item.state != "proposed")
    if study is None:
        return
    versions = session.hub.versions(study.digest)
    if not versions:
        st.html(
            markup.empty(
                "No version yet", "A hospital builds the first one from the study's seed; it appears in a moment."
            )
        )
        return
    with st.container(key="card-lineage"):
        weights = "how much each weighs, the hub cannot see" if _hides_weights(study) else "larger dots weigh more"
        st.html(markup.section("Lineage", f"which hospital's update went into which version; {weights}"))
        st.plotly_chart(
            charts.lineage(versions, study.final_version, [site.site for site in study.sites]),
            key="lineage",
            config=charts.CONFIG,
            theme=None,
        )
    with st.container(key="card-versions"):
        st.html(markup.section("All versions", "click a digest to copy it whole"))
        st.html(_table(study, versions))
    _details(study, versions)


def _table(study: Study, versions: list[Version]) -> str:
    rows = [_row(version, version.number == study.final_version) for version in reversed(versions)]
    columns = ["Version", "Digest", "Made", "Hospitals", "AUC, pooled", f"ε {per_unit(study.privacy.unit)}", "Decision"]
    return markup.table(columns, rows, numeric=(0, 5))


def _origin(version: Version) -> str:
    """Return where a version comes from that no hospital's update is in."""
    return "taken from an earlier version" if version.parents else "built from the seed"


def _row(version: Version, is_final: bool) -> list[str]:
    metrics, privacy = version.metrics, version.privacy
    last = version.decisions[-1] if version.decisions else None
    final = ' <span class="wr-pill good">final</span>' if is_final else ""
    sites = ", ".join(escape(part.site) + fraction_mark(part.used) for part in version.participants)
    spent = epsilon(privacy.epsilon) if privacy else NONE
    return [
        f"<b>{version.number}</b>",
        markup.digest(version.digest) + final,
        local_clock(version.created_at),
        sites or escape(_origin(version)),
        auc_cell(metrics.score, metrics.score_low, metrics.score_high) if metrics else NONE,
        spent,
        f"{markup.pill(last.decision)} <span class='wr-quiet'>{escape(last.person)}</span>" if last else NONE,
    ]


def _details(study: Study, versions: list[Version]) -> None:
    with st.container(key="card-details"):
        st.html(markup.section("Provenance of one version"))
        left, right = st.columns([1, 1.3], gap="large")
        with left:
            version = choose_version(versions, study.final_version)
            st.html(_identity(study, version))
            if version.lineage_envelope:
                st.download_button(
                    "Signed lineage (JSON)",
                    _envelope_text(version),
                    file_name=f"{study.name}-v{version.number}.lineage.dsse.json",
                    mime="application/json",
                    icon=":material/verified:",
                    on_click="ignore",
                )
            st.html(markup.note("info", "As a MONAI Bundle", "With Wardround's extra “bundles” installed:"))
            st.code(_export_command(study, version), language="bash", wrap_lines=True)
        with right:
            _contributions(version, hides_weights=_hides_weights(study))


def _export_command(study: Study, version: Version) -> str:
    """Return what writes the version as a MONAI Bundle, but for the hub's address and the person's name."""
    name = f"{study.name}-v{version.number}"
    return f"wardround bundle export {name} --hub HUB --study {study.digest} --version {version.number} --as YOU"


def _identity(study: Study, version: Version) -> str:
    step = [] if version.server_step is None else [("hub's step", f"{version.server_step:.2f} times the mean update")]
    return markup.facts(
        [
            ("weights", markup.digest(version.digest)),
            ("parents", " ".join(markup.digest(parent) for parent in version.parents) or "none: the first version"),
            ("names and shapes", markup.digest(version.manifest_digest)),
            ("study", markup.digest(study.digest)),
            ("size", size(version.weights_bytes)),
            ("round", str(version.round)),
            *step,
        ]
    )


def _hides_weights(study: Study) -> bool:
    """Tell whether a hospital's weight travelled inside its masked or encrypted update."""
    hidden = study.study.get("secure_aggregation", {}).get("method", "none") != "none"
    return bool(hidden and study.study.get("strategy", {}).get("weighting", "patients") == "patients")


def _contributions(version: Version, *, hides_weights: bool) -> None:
    if not version.participants and version.parents:
        text = "These are the weights that the study names to start from; the hospitals approved their digest."
        st.html(markup.note("info", "Taken from an earlier version", text))
        return
    if not version.participants:
        text = "Any hospital can rebuild this version from the study's seed and compare the digest."
        st.html(markup.note("info", "Built from the seed", text))
        return
    whole = sum(part.weight for part in version.participants) or 1.0
    rows = [
        [
            escape(part.site) + fraction_mark(part.used),
            "hidden" if hides_weights else f"{100 * _share(part, whole):.0f} %",
            markup.digest(part.update_digest),
        ]
        for part in version.participants
    ]
    st.html(markup.table(["Hospital", "Share", "Update"], rows, numeric=(1,)))


def _share(part: VersionParticipant, whole: float) -> float:
    return part.weight / whole if part.share is None else part.share


def _envelope_text(version: Version) -> str:
    envelope = version.lineage_envelope
    return envelope if isinstance(envelope, str) else json.dumps(envelope, indent=2)


if __name__ == "__main__":
    show()
