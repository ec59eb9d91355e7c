"""Doctor: is all well with this hospital's node, as far as the gate's user may see it?"""

import streamlit as st

from ui import markup
from ui.site_choice import findings_table
from ui.site_session import ADMINISTRATOR, require_site_session
from ui.site_views import DoctorFinding


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    st.html(
        markup.head("Doctor", "What the gate may see of this node. All of it: wardround site doctor SITE, as root.")
    )
    if not session.may(ADMINISTRATOR):
        st.html(markup.note("wait", "This page is for the hospital's administrator."))
        return
    with st.spinner("Looking…"):
        findings = session.site.doctor()
    st.html(_verdict(findings))
    with st.container(key="card-doctor"):
        st.html(findings_table(findings))
    st.button("Look again", icon=":material/refresh:")


def _verdict(findings: list[DoctorFinding]) -> str:
    levels = {finding.level for finding in findings}
    if "problem" in levels:
        return markup.note("bad", "Something does not work", "The first lines say what to do.")
    if "warning" in levels:
        return markup.note("wait", "It works, and something is to be heeded")
    return markup.note("good", "Nothing is wrong with what can be seen from here")


if __name__ == "__main__":
    show()
