"""Which proposed study a site's page is about, and the hospital's findings as people read them."""

from collections.abc import Iterable
from html import escape

import streamlit as st

from ui import markup
from ui.site_client import SiteClient
from ui.site_views import DoctorFinding, ProposedStudy
from ui.wording import words_of

KEPT = "proposed-study"
TONES = {"ok": "good", "warning": "wait", "problem": "bad", "unseen": ""}
WORDS = {"ok": "fine", "warning": "heed", "problem": "problem", "unseen": "not seen from here"}
HIDDEN = "hidden"


def choose_proposed(site: SiteClient) -> ProposedStudy | None:
    """Let the person choose among what was proposed here, the newest first; None, and an empty page, without any."""
    studies = [study for study in reversed(site.studies()) if study.name]
    if not studies:
        text = "A researcher proposes a study at the hub; the agent brings it here, and it waits for you."
        st.html(markup.empty("Nothing was proposed yet", text))
        return None
    by_digest = {study.digest: study for study in studies}
    kept = st.session_state.get(KEPT)
    waiting = [study.digest for study in studies if study.state in {"awaiting", "counting"}]
    first = kept if kept in by_digest else (waiting or list(by_digest))[0]
    chosen = st.selectbox(
        "Study",
        list(by_digest),
        index=list(by_digest).index(first),
        format_func=lambda key: f"{by_digest[key].label}  ·  {words_of(by_digest[key].state)}",
    )
    st.session_state[KEPT] = chosen
    return by_digest[chosen]


def findings_table(findings: Iterable[DoctorFinding]) -> str:
    """Return findings as a table: what must be done first."""
    order = ("problem", "warning", "unseen", "ok")
    ordered = sorted(findings, key=lambda one: order.index(one.level) if one.level in order else len(order))
    return markup.table(["", "What", "Finding"], [_row(finding) for finding in ordered], kind="wr-findings")


def said(number: int | None) -> str:
    """Return a count in tens; None is hidden, because it is small."""
    return HIDDEN if number is None else f"{number:,}".replace(",", "\u202f")


def _row(finding: DoctorFinding) -> list[str]:
    tone = TONES.get(finding.level, "")
    pill = f'<span class="wr-pill {tone}">{escape(WORDS.get(finding.level, finding.level))}</span>'
    where = f'<br><span class="wr-quiet">{escape(finding.part)}</span>' if finding.part else ""
    remedy = (
        f'<div class="wr-quiet">→ {escape(finding.remedy.replace("`", ""))}</div>'
        if finding.remedy and tone != "good"
        else ""
    )
    return [
        pill,
        f"<b>{escape(finding.check.replace('-', ' '))}</b>{where}",
        f"{escape(finding.says.replace('`', ''))}{remedy}",
    ]
