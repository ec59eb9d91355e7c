"""Privacy budget: what the studies of this hospital have spent of each patient's lifetime budget."""

import streamlit as st

from ui import markup
from ui.site_session import require_site_session
from ui.site_views import Budget, ChargedStudy
from ui.wording import epsilon, plural, power_of_ten


def show() -> None:
    """Draw the page."""
    budget = require_site_session().site.budget()
    st.html(
        markup.head(
            "Privacy budget", "What all studies together can tell of one patient, and what is left of the limit."
        )
    )
    if budget.behind:
        text = "Nothing is spent before it has made up for it: wardround site reconcile."
        st.html(markup.note("bad", "The ledger is behind", text))
    st.html(markup.tiles(_tiles(budget)))
    with st.container(key="card-used"):
        used = f"{100 * budget.share_used:.1f} %"
        st.html(markup.section("Used, by the patient who was charged most", used))
        st.html(markup.bar(budget.share_used, "late" if budget.share_used > 0.75 else ""))
        st.html(f'<p class="wr-quiet wr-under">{budget.meaning}</p>')
    with st.container(key="card-studies"):
        _studies(budget)


def _tiles(budget: Budget) -> list[str]:
    at = f"at delta {power_of_ten(budget.lifetime_delta)}"
    fits = f"at delta {power_of_ten(budget.fits_delta)}"
    return [
        markup.tile("Limit of a lifetime", f"{budget.lifetime_epsilon:g}", at, "epsilon"),
        markup.tile("Spent so far", epsilon(budget.epsilon), "one bound over all studies", "epsilon"),
        markup.tile("Still fits, for everybody", epsilon(budget.fits_epsilon), fits, "epsilon"),
        markup.tile("For who was in no study", epsilon(budget.fits_epsilon_new_patient), fits, "epsilon"),
    ]


def _studies(budget: Budget) -> None:
    entries = plural(budget.entries, "entry", "entries")
    st.html(markup.section("Charged studies", f"{entries} in the ledger, chain intact"))
    if not budget.studies:
        st.html('<p class="wr-quiet">No study was charged yet.</p>')
        return
    rows = [_row(study) for study in budget.studies]
    st.html(markup.table(["Study", "Epsilon", "Delta", "Held-out patients"], rows, numeric=(1, 2)))


def _row(study: ChargedStudy) -> list[str]:
    held_out = "not protected" if study.held_out_unprotected else "protected"
    price = "not protected" if study.epsilon is None else epsilon(study.epsilon)
    delta = power_of_ten(study.delta) if study.delta else "—"
    return [markup.digest(study.study_digest), price, delta, held_out]


if __name__ == "__main__":
    show()
