"""Several classes on the validation page: all of them at a glance, and one of them chosen as if there were two."""

from dataclasses import replace
from html import escape

import streamlit as st

from ui import markup
from ui.study_choice import auc_cell
from ui.views import Curves, Metrics, Study, Validation
from ui.wording import count, number, percent, plural

ALL_CLASSES = "all classes"


def class_names(study: Study) -> list[str]:
    """Return the study's names of its classes."""
    return [str(name) for name in study.study.get("label", {}).get("classes", [])]


def choose_class(study: Study, found: Validation) -> Validation | None:
    """Show the classes, let one be chosen, and return what is known of it; None for all of them together."""
    classes = found.pooled.classes if found.pooled is not None else []
    if not classes:
        return None
    names = class_names(study)
    with st.container(key="card-classes"):
        st.html(markup.section("Which classes does it tell apart?", "each against all others"))
        st.html(_table(names, classes))
        chosen = st.segmented_control("Class", [ALL_CLASSES, *names], default=ALL_CLASSES, required=True)
    return None if chosen in (None, ALL_CLASSES) else of_class(found, names.index(str(chosen)))


def of_class(found: Validation, place: int) -> Validation:
    """Return what is known of one class against all others."""
    pooled = found.pooled.classes[place] if found.pooled is not None else None
    sites = [replace(site.classes[place], site=site.site) for site in found.sites if place < len(site.classes)]
    return Validation(pooled=pooled, sites=sites)


def tiles(pooled: Metrics) -> str:
    """Return the figures of all classes together."""
    low, high = number(pooled.auc_low), number(pooled.auc_high)
    of = plural(pooled.classes_shown or 0, "class", "classes")
    return markup.tiles(
        (
            markup.tile(pooled.score_name, number(pooled.score), f"interval {low} to {high}"),
            markup.tile("Classes", str(len(pooled.classes)), f"the mean is of {of} with enough patients"),
            markup.tile("Held-out patients", count(pooled.patients), "of all classes"),
        )
    )


def _table(names: list[str], classes: list[Curves]) -> str:
    lines = [
        [
            escape(name),
            escape(count(own.patients)),
            escape(count(own.positives)),
            auc_cell(own.auc, own.auc_low, own.auc_high),
            percent(own.sensitivity),
            percent(own.specificity),
        ]
        for name, own in zip(names, classes, strict=False)
    ]
    columns = ["Class", "Patients", "With it", "AUC", "Sensitivity", "Specificity"]
    return markup.table(columns, lines, numeric=(1, 2, 4, 5))
