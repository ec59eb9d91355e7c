"""Draws the fields of `form_fields` with Streamlit's widgets and reads their values back."""

from typing import Any

import streamlit as st
import yaml

from ui.form_fields import CHOICE_WORDS, NEEDED_WITH, Field, starting_value
from ui.form_labels import Path

SMALL_NUMBER = 0.001
SWITCHES: dict[tuple[str, ...], str] = {("privacy", "epsilon"): "Differential privacy"}
OPEN_SWITCH: dict[bool | None, str] = {None: "as the study needs it", True: "yes", False: "no"}
EXAMPLES: dict[Path, str] = {
    ("table", "features"): "[{column: age, mean: 60, deviation: 10}]",
    ("preprocessing", "steps"): "[{transform: ScaleIntensity}, {transform: Resize, spatial_size: [64, 64]}]",
}
"""Of lists of records, which are written as YAML."""


def draw(field: Field) -> Any:
    """Draw one input and return its value, in the form that a specification wants."""
    value = starting_value(field)
    may_be_empty = field.nullable and value is None and field.path not in NEEDED_WITH
    label = field.label + ("  (may be empty)" if may_be_empty else "")
    if field.kind == "number":
        return _number(field, label, value)
    if field.kind == "integer":
        return _integer(field, label, value)
    if field.kind in {"choice", "switch"}:
        return _choice(field, label, value)
    if field.kind in {"several", "words"}:
        return _list(field, label, value)
    return _text(field, label, value)


def _number(field: Field, label: str, value: Any) -> float | None:
    small = value is not None and 0 < value < SMALL_NUMBER
    options: dict[str, Any] = {
        "value": None if value is None else float(value),
        "min_value": None if field.minimum is None else float(field.minimum),
        "max_value": None if field.maximum is None else float(field.maximum),
        "step": float(value) / 10 if small else 0.05 if value is not None and value < 1 else 0.5,
        "format": "%.1e" if small else "%g",
    }
    # An input that starts with a number cannot be emptied, so one that may be none has a switch beside it.
    off = field.nullable and value is not None and not st.toggle(SWITCHES.get(field.path, f"With {label}"), value=True)
    chosen = st.number_input(label, disabled=off, help=field.help or None, key=field.key, **options)
    return None if off or chosen is None else float(chosen)


def _integer(field: Field, label: str, value: Any) -> int | None:
    # Whole numbers above 2**53 are not JavaScript's; such limits are left to the hub.
    limit = field.maximum if field.maximum is not None and field.maximum < 2**53 - 1 else None
    return st.number_input(
        label,
        value=None if value is None else int(value),
        min_value=None if field.minimum is None else int(field.minimum),
        max_value=None if limit is None else int(limit),
        step=1,
        help=field.help or None,
        key=field.key,
    )


def _choice(field: Field, label: str, value: Any) -> Any:
    if field.kind == "switch" and field.nullable:
        return st.selectbox(
            label, OPEN_SWITCH, format_func=lambda choice: OPEN_SWITCH[choice], help=field.help or None, key=field.key
        )
    if field.kind == "switch":
        return st.toggle(label, value=bool(value), help=field.help or None, key=field.key)
    index = field.choices.index(value) if value in field.choices else 0
    words = CHOICE_WORDS.get(field.path, {})
    return st.selectbox(
        label,
        field.choices,
        index=index,
        format_func=lambda choice: words.get(choice, choice),
        help=field.help or None,
        key=field.key,
    )


def _list(field: Field, label: str, value: Any) -> list[str]:
    chosen = list(value or [])
    options = list(dict.fromkeys([*chosen, *field.choices]))
    return st.multiselect(
        label,
        options,
        default=chosen,
        accept_new_options=field.kind == "words",
        placeholder="any" if not field.required else "type and press Enter",
        help=field.help or None,
        key=field.key,
    )


def _text(field: Field, label: str, value: Any) -> Any:
    help_text = field.help or None
    if field.kind == "paragraph":
        return st.text_area(label, value=value or "", help=help_text, key=field.key, height=96)
    if field.kind == "mapping":
        text = st.text_input(
            label, value="", help=f"{field.help} Written as YAML, for example: {{depth: 2}}", key=field.key
        )
        return _parsed(text, {})
    if field.kind == "records":
        said = f"{field.help} A list, written as YAML, for example: {EXAMPLES.get(field.path, '[]')}"
        return _parsed(st.text_area(label, value="", help=said, key=field.key, height=96), [])
    if field.kind == "integers":
        shown = ", ".join(str(item) for item in value or [])
        return _parsed(f"[{st.text_input(label, value=shown, help=help_text, key=field.key)}]", value)
    text = st.text_input(label, value=value or "", help=help_text, key=field.key).strip()
    return None if field.nullable and not text else text


def _parsed(text: str, otherwise: Any) -> Any:
    """Return what the YAML says; what does not parse goes to the hub as it is, whose refusal names the field."""
    try:
        return yaml.safe_load(text) or otherwise
    except yaml.YAMLError:
        return text
