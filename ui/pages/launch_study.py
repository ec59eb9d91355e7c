"""Launch a study: describe it, see what its promise of privacy costs, propose it to hospitals.

The form comes from the hub's schema; whoever prefers a file uploads or pastes YAML. Either way the hub checks the text
at every change, so that the price stands beside the form before anybody is asked.
"""

from collections.abc import Mapping

import streamlit as st

from ui import charts, markup
from ui.errors import HubRefusedError, SignedOutError, UiError
from ui.form_fields import Field, Group, groups_of, specification_of, starting_value, yaml_of
from ui.form_widgets import draw
from ui.live import attempt
from ui.session import RESEARCHER, Session, require_session
from ui.study_choice import KEPT
from ui.views import StudyCheck
from ui.wording import number, plural, power_of_ten

FORM, FILE = "Fill in a form", "Use a YAML file"
CHECKED = "study-check"


def show() -> None:
    """Draw the page."""
    session = require_session()
    if not session.may(RESEARCHER):
        st.html(markup.note("wait", "Studies are launched by researchers.", "You can follow them under Rounds."))
        return
    lead = "Describe the question once. Each hospital decides for itself; it approves exactly what you write here."
    st.html(markup.head("Launch a study", lead))
    left, right = st.columns([1.75, 1], gap="medium")
    with left:
        way = st.segmented_control("How", [FORM, FILE], default=FORM, required=True, label_visibility="collapsed")
        text = _form(session) if way == FORM else _file()
    with right:
        if not text.strip():
            _nothing_yet()
            return
        checked = _price(session, text)
        if checked is not None:
            _propose(session, text, checked)


def _form(session: Session) -> str:
    groups = groups_of(session.hub.study_schema())
    values: dict[tuple[str, ...], object] = {}
    fields = [field for group in groups for field in group.fields]
    chosen = {field.path: st.session_state.get(field.key, starting_value(field)) for field in fields}
    for tab, group in zip(st.tabs([group.title for group in groups]), groups, strict=True):
        with tab:
            values |= _group(group, chosen)
    text = yaml_of(specification_of(values, tuple(fields)))
    with st.expander("This study as YAML", icon=":material/code:"):
        st.code(text, language="yaml")
    return text


def _group(group: Group, chosen: Mapping[tuple[str, ...], object]) -> dict[tuple[str, ...], object]:
    st.html(f'<div class="wr-quiet">{group.lead}</div>')
    values = _inputs([field for field in group.fields if not field.advanced])
    advanced = [field for field in group.fields if field.advanced]
    values |= _inputs([field for field in advanced if field.needed(chosen)])
    rest = [field for field in advanced if not field.needed(chosen)]
    if rest:
        with st.expander("More, for those who know", icon=":material/tune:"):
            values |= _inputs(rest)
    return values


def _inputs(fields: list[Field]) -> dict[tuple[str, ...], object]:
    values: dict[tuple[str, ...], object] = {}
    narrow = [field for field in fields if field.kind != "paragraph"]
    for start in range(0, len(narrow), 2):
        for column, field in zip(st.columns(2), narrow[start : start + 2], strict=False):
            with column:
                values[field.path] = draw(field)
    for field in fields:
        if field.kind == "paragraph":
            values[field.path] = draw(field)
    return values


def _file() -> str:
    upload = st.file_uploader("A study.yaml from your machine", type=["yaml", "yml", "json"])
    if upload is not None:
        text = upload.getvalue().decode("utf-8", errors="replace")
        st.code(text, language="yaml", height=420)
        return text
    return st.text_area("or paste it", height=360, placeholder="name: pneumonia-cxr\nlabel:\n  classes: ['no', 'yes']")


def _nothing_yet() -> None:
    with st.container(key="card-price"):
        st.html(
            markup.empty(
                "The price of privacy", "As soon as there is a study, the hub says here what its promise costs."
            )
        )


def _price(session: Session, text: str) -> StudyCheck | None:
    with st.container(key="card-price"):
        st.html(markup.section("The price of privacy"))
        try:
            checked = _checked(session, text)
        except SignedOutError:
            raise
        except HubRefusedError as error:
            st.html(_problems(error))
            return None
        except UiError as error:
            st.html(markup.note("bad", error.message, error.remedy))
            return None
        _show_price(checked)
        return checked


def _checked(session: Session, text: str) -> StudyCheck:
    kept = st.session_state.get(CHECKED)
    if kept is None or kept[0] != text:
        with st.spinner("The hub is calculating …"):
            kept = (text, session.hub.check_study(text))
        st.session_state[CHECKED] = kept
    checked: StudyCheck = kept[1]
    return checked


def _problems(error: HubRefusedError) -> str:
    lines = [line.strip().removeprefix("- ") for line in error.message.splitlines() if line.strip()]
    title = "One thing to correct" if len(lines) == 2 else "Not usable yet"
    return markup.note("bad", title, "" if len(lines) > 1 else error.message, lines[1:])


def _show_price(checked: StudyCheck) -> None:
    privacy = checked.study["privacy"]
    rounds = int(checked.study["rounds"])
    if checked.noise_multiplier is None:
        text = (
            "Updates are sent without noise. A determined reader could learn about single patients from them. "
            "Many hospitals' policies refuse such a study."
        )
        st.html(markup.note("wait", "No differential privacy", text))
        return
    spent = checked.epsilon_by_round
    whose = "a hospital, with all its patients," if privacy["unit"] == "site" else "a patient"
    st.html(
        f'<p style="margin:.1rem 0 .8rem">After {plural(rounds, "round")}, whether {whose} took part stays hidden '
        f"within <b>ε = {privacy['epsilon']:g}</b> at δ = {power_of_ten(privacy['delta'])}.</p>"
        + markup.tiles(
            (
                markup.tile("Noise multiplier", number(checked.noise_multiplier, 2), "of the clipping norm"),
                markup.tile("ε after round 1", number(spent[0], 2), f"after the last {number(spent[-1], 2)}"),
            )
        )
    )
    figure = charts.epsilon_by_round(range(len(spent) + 1), [0.0, *spent], privacy["epsilon"], rounds)
    st.plotly_chart(figure, key="price", config=charts.CONFIG, theme=None)
    text = "Less noise for the same promise: fewer rounds, fewer steps a round, or a lower sampling rate."
    st.html(f'<div class="wr-quiet">{text}</div>')


def _propose(session: Session, text: str, checked: StudyCheck) -> None:
    with st.container(key="card-propose"):
        st.html(markup.section("Ask the hospitals"))
        names = [site.name for site in session.hub.sites() if site.state == "enrolled"]
        if not names:
            st.html(markup.note("wait", "No hospital is enrolled yet", "The hub's operator invites hospitals."))
            return
        invited = st.pills(
            "Hospitals to ask", names, selection_mode="multi", default=names, label_visibility="collapsed"
        )
        st.html(f'<div class="wr-quiet">They approve exactly this text: {markup.digest(checked.digest)}</div>')
        label = f"Propose to {plural(len(invited), 'hospital')}"
        if st.button(label, type="primary", icon=":material/send:", width="stretch", disabled=not invited) and attempt(
            lambda: session.hub.propose_study(text, invited), "Proposed. The hospitals are being asked."
        ):
            st.session_state[KEPT] = checked.study["name"]
            st.switch_page("rounds.py")


if __name__ == "__main__":
    show()
