"""The launch form, derived from the hub's JSON Schema of a study: which fields, in which groups, with which defaults.

Pure: `groups_of` reads a schema, `specification_of` turns values back into the smallest specification that says the
same (a value equal to its default is left out). A field that a later hub adds appears by itself, in its part's group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

Kind = Literal["text", "paragraph", "integer", "number", "switch", "choice", "several", "words", "integers", "mapping"]
Path = tuple[str, ...]

STARTING_VALUES: dict[Path, Any] = {
    ("title",): "Pneumonia on chest radiographs",
    ("name",): "pneumonia-cxr",
    ("label", "classes"): ["no pneumonia", "pneumonia"],
    ("cohort", "modality"): ["DX", "CR"],
    ("network", "name"): "densenet",
    ("rounds",): 20,
    ("participants", "training_patients"): 300,
    ("privacy", "epsilon"): 8.0,
}
SUGGESTIONS: dict[Path, list[str]] = {
    ("cohort", "modality"): ["DX", "CR", "CT", "MR", "US", "MG"],
    ("cohort", "body_part"): ["CHEST", "ABDOMEN", "HEAD", "BREAST"],
    ("cohort", "view"): ["PA", "AP", "LL", "RL"],
    ("label", "classes"): [],
}
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Question", "What is asked, and where a patient's answer is found.", ("", "label")),
    ("Patients", "Whose images take part. An empty criterion is left open.", ("cohort", "splits")),
    ("Model", "How an image becomes a tensor, and which network reads it.", ("preprocessing", "network")),
    ("Training", "What a hospital does in one round, and how the hub combines the updates.", ("training", "strategy")),
    (
        "Privacy",
        "What every patient is promised, whatever anyone does with the model.",
        ("privacy", "secure_aggregation"),
    ),
    (
        "Hospitals",
        "Who must be there, and how updates travel and versions are judged.",
        ("participants", "transport", "evaluation"),
    ),
)
LABELS: dict[Path, str] = {
    ("name",): "Short name",
    ("label", "column"): "Label column in labels.csv",
    ("label", "patient_label"): "A patient is positive if … images are",
    ("label", "patient_score"): "A patient's score is the images'",
    ("cohort", "minimum_patients"): "Fewest patients a hospital trains with",
    ("cohort", "age_min_years"): "Youngest age, years",
    ("cohort", "age_max_years"): "Oldest age, years",
    ("splits", "validation"): "Held out for validation",
    ("splits", "test"): "Held out for test",
    ("preprocessing", "size"): "Image size, pixels",
    ("network", "name"): "Network",
    ("strategy", "name"): "How the hub combines updates",
    ("strategy", "learning_rate"): "The hub's learning rate",
    ("participants", "training_patients"): "Training patients, all hospitals together",
    ("secure_aggregation", "method"): "Hide single updates from the hub",
    ("privacy", "mechanism"): "Where the noise is added",
    ("privacy", "epsilon"): "Epsilon (ε)",
    ("privacy", "delta"): "Delta (δ)",
    ("evaluation", "splits"): "Evaluate on",
    ("evaluation", "every"): "Evaluate every n-th version",
}
FIRST: tuple[Path, ...] = (("title",), ("name",), ("label", "classes"), ("rounds",), ("label", "column"))
ADVANCED: frozenset[Path] = frozenset(
    {
        ("seed",),
        ("label", "patient_score"),
        ("cohort", "view"),
        ("cohort", "minimum_patients"),
        ("network", "arguments"),
        ("network", "normalisation"),
        ("training", "momentum"),
        ("training", "weight_decay"),
        ("strategy", "averaging"),
        ("strategy", "weighting"),
        ("privacy", "unit"),
        ("privacy", "honest_fraction"),
        ("privacy", "update_norm"),
        ("privacy", "update_quantile"),
        ("privacy", "update_norm_rate"),
        ("privacy", "spare_tasks"),
        ("privacy", "allow_large_delta"),
        ("secure_aggregation", "maximum_sites"),
        ("secure_aggregation", "maximum_weight"),
        ("secure_aggregation", "value_range"),
        ("secure_aggregation", "value_bits"),
        ("secure_aggregation", "phase_seconds"),
        ("transport", "compression"),
        ("evaluation", "at_most"),
        ("evaluation", "noise_epsilon"),
    }
)
CHOICE_WORDS: dict[Path, dict[str, str]] = {
    ("secure_aggregation", "method"): {
        "none": "no, it sees each update",
        "masking": "yes, by masks between the hospitals",
        "homomorphic": "yes, by encryption under a key of the hospitals",
    },
    ("privacy", "mechanism"): {
        "dp-sgd": "in every training step of a hospital",
        "shared-noise": "to the sum of all, each hospital a share",
        "site-level": "to each hospital's update as a whole",
    },
}
PARAGRAPHS = {("description",)}
HELP: dict[Path, str] = {
    ("name",): "Lower-case letters, digits and hyphens; unique on this hub.",
    ("title",): "What people will read.",
    ("rounds",): "How often the model goes out and comes back. More rounds need more noise for the same epsilon.",
    (
        "privacy",
        "epsilon",
    ): "The smaller, the stronger the promise. Switched off, every page says so.",
    ("privacy", "delta"): "The chance that the promise does not hold; well below 1 / (10 x training patients).",
}


@dataclass(frozen=True)
class Field:
    """One input of the form."""

    path: Path
    label: str
    help: str
    kind: Kind
    default: Any
    required: bool = False
    nullable: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def advanced(self) -> bool:
        """Tell whether most people leave this as it is."""
        return self.path in ADVANCED

    @property
    def key(self) -> str:
        """Return the widget's key."""
        return "field-" + ".".join(self.path)


@dataclass(frozen=True)
class Group:
    """Inputs that belong together."""

    title: str
    lead: str
    fields: tuple[Field, ...]


def groups_of(schema: Mapping[str, Any]) -> tuple[Group, ...]:
    """Return the form of a schema, group by group; parts that no group names come last."""
    fields = sorted(_fields(schema, schema, ()), key=lambda f: FIRST.index(f.path) if f.path in FIRST else len(FIRST))
    named = {part for _, _, parts in GROUPS for part in parts}
    others = tuple(dict.fromkeys(_part(field) for field in fields if _part(field) not in named))
    wanted = (*GROUPS, ("More", "Further terms of this hub.", others)) if others else GROUPS
    found = (Group(title, lead, tuple(f for f in fields if _part(f) in parts)) for title, lead, parts in wanted)
    return tuple(group for group in found if group.fields)


def specification_of(values: Mapping[Path, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return the specification that these values make, without what equals a default."""
    found: dict[str, Any] = {}
    for field in fields:
        value = values.get(field.path, field.default)
        if not field.required and value == field.default:
            continue
        inner = found
        for part in field.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[field.path[-1]] = value
    return found


def yaml_of(specification: Mapping[str, Any]) -> str:
    """Return a specification as YAML, in the order of the form."""
    return str(yaml.safe_dump(dict(specification), sort_keys=False, allow_unicode=True))


def starting_value(field: Field) -> Any:
    """Return what the form shows at first."""
    return STARTING_VALUES.get(field.path, field.default)


def _part(field: Field) -> str:
    return field.path[0] if len(field.path) > 1 else ""


def _fields(node: Mapping[str, Any], schema: Mapping[str, Any], path: Path) -> list[Field]:
    required = set(node.get("required", ()))
    found: list[Field] = []
    for name, raw in node.get("properties", {}).items():
        inner, nullable = _resolved(raw, schema)
        if "const" in inner:
            continue
        if "properties" in inner:
            found += _fields(inner, schema, (*path, name))
        else:
            found.append(_field((*path, name), {**inner, **_own(raw)}, name in required, nullable, schema))
    return found


def _own(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: raw[key] for key in ("default", "description") if key in raw}


def _field(path: Path, node: Mapping[str, Any], required: bool, nullable: bool, schema: Mapping[str, Any]) -> Field:
    kind, choices = _kind(path, node, schema)
    return Field(
        path=path,
        label=LABELS.get(path) or path[-1].replace("_", " ").capitalize(),
        help=HELP.get(path) or _sentence(str(node.get("description", ""))),
        kind=kind,
        default=node.get("default"),
        required=required,
        nullable=nullable,
        choices=choices,
        minimum=node.get("minimum", node.get("exclusiveMinimum")),
        maximum=node.get("maximum", node.get("exclusiveMaximum")),
    )


def _kind(path: Path, node: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Kind, tuple[str, ...]]:
    if "enum" in node:
        return "choice", tuple(str(item) for item in node["enum"])
    simple: dict[str, Kind] = {"integer": "integer", "number": "number", "boolean": "switch", "object": "mapping"}
    if node.get("type") == "array":
        items, _ = _resolved(node.get("items", {}), schema)
        if "enum" in items:
            return "several", tuple(str(item) for item in items["enum"])
        return ("integers", ()) if items.get("type") == "integer" else ("words", tuple(SUGGESTIONS.get(path, ())))
    return simple.get(str(node.get("type")), "paragraph" if path in PARAGRAPHS else "text"), ()


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Follow a reference, and take `null` out of an alternative."""
    if "$ref" in node:
        return _resolved(schema["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]], schema)
    options = node.get("anyOf", ())
    plain = [option for option in options if option.get("type") != "null"]
    if len(plain) == 1:
        inner, _ = _resolved(plain[0], schema)
        return {**inner, **_own(node)}, len(plain) < len(options)
    return node, False


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")
