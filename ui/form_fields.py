"""The launch form, derived from the hub's JSON Schema of a study: which fields, in which groups, with which defaults.

Pure: `groups_of` reads a schema, `specification_of` turns values back into the smallest specification that says the
same (a value equal to its default is left out). A field that a later hub adds appears by itself, in its part's group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ui.form_labels import LABELS, Path

Plain = Literal["text", "paragraph", "integer", "number", "switch", "mapping"]
Lists = Literal["several", "words", "integers", "records"]
Kind = Literal["choice", Plain, Lists]

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
    ("personal", "keep"): ["normalisation"],
    ("transport", "upload"): ["top-k:0.02", "random-k:0.1", "quantise:8", "half:bfloat16", "zstandard"],
    ("transport", "download"): ["quantise:8", "half:bfloat16", "zstandard"],
}
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Question", "What is asked, and where a patient's answer is found.", ("", "label", "segmentation", "regression")),
    ("Patients", "Whose images take part. An empty criterion is left open.", ("cohort", "table", "splits")),
    ("Model", "How an image becomes a tensor, and which network reads it.", ("preprocessing", "network", "start")),
    (
        "Training",
        "What a hospital does in one round, and how the hub combines the updates.",
        ("training", "strategy", "site_rates", "personal"),
    ),
    (
        "Privacy",
        "What every patient, or every hospital, is promised, whatever anyone does with the model.",
        ("privacy", "secure_aggregation"),
    ),
    (
        "Hospitals",
        "Who must be there, and how updates travel and versions are judged.",
        ("participants", "pace", "transport", "evaluation"),
    ),
)
FIRST: tuple[Path, ...] = (("title",), ("name",), ("label", "classes"), ("rounds",), ("label", "column"))
ADVANCED: frozenset[Path] = frozenset(
    {
        ("seed",),
        ("label", "patient_score"),
        ("label", "several"),
        ("label", "separator"),
        ("label", "weights"),
        ("label", "balance"),
        ("label", "focal"),
        *(("preprocessing", key) for key in ("intensity", "window", "mirror", "steps")),
        ("cohort", "view"),
        ("cohort", "manufacturer"),
        ("cohort", "protocol"),
        ("cohort", "series_description"),
        ("cohort", "date_from"),
        ("cohort", "date_until"),
        ("cohort", "minimum_patients"),
        ("cohort", "single_class"),
        ("network", "arguments"),
        ("network", "normalisation"),
        *(("training", key) for key in ("local_epochs", "warm_up_rounds", "step_rounds", "step_factor", "proximal")),
        ("training", "precision"),
        ("personal", "keep"),
        ("personal", "ditto"),
        ("personal", "judged"),
        ("training", "momentum"),
        ("training", "weight_decay"),
        ("strategy", "averaging"),
        ("strategy", "join"),
        ("strategy", "momentum"),
        ("strategy", "norm_limit"),
        ("strategy", "second_moment"),
        ("strategy", "tau"),
        ("strategy", "weighting"),
        ("strategy", "wild_sites"),
        ("site_rates", "adapt"),
        ("site_rates", "least"),
        ("site_rates", "most"),
        ("site_rates", "from_round"),
        ("site_rates", "quality_epsilon"),
        *(("privacy", key) for key in ("unit", "count_epsilon", "receipt_epsilon", "honest_fraction")),
        *(("privacy", key) for key in ("update_norm", "update_quantile", "update_norm_rate")),
        *(("privacy", key) for key in ("spare_tasks", "allow_large_delta")),
        ("secure_aggregation", "maximum_sites"),
        ("secure_aggregation", "maximum_weight"),
        ("secure_aggregation", "value_range"),
        ("secure_aggregation", "value_bits"),
        ("secure_aggregation", "phase_seconds"),
        ("transport", "upload"),
        ("transport", "error_feedback"),
        ("transport", "download"),
        ("label", "time_column"),
        ("table", "features"),
        ("segmentation", "loss"),
        ("regression", "low"),
        ("regression", "high"),
        ("regression", "unit"),
        ("regression", "loss"),
        ("regression", "huber_delta"),
        ("start", "weights"),
        ("start", "study"),
        ("start", "version"),
        ("participants", "deadline"),
        ("participants", "late"),
        ("participants", "sampled"),
        ("pace", "mode"),
        ("pace", "buffer"),
        ("pace", "maximum_staleness"),
        ("pace", "staleness_exponent"),
        ("evaluation", "at_most"),
        ("evaluation", "noise_epsilon"),
        ("evaluation", "patience"),
        ("evaluation", "sum_under_masks"),
    }
)
_HIDDEN_SUM = (("secure_aggregation", "method"), frozenset({"masking", "homomorphic"}))
_TABULAR = (("kind",), frozenset({"tabular"}))
_SEGMENTATION = (("kind",), frozenset({"segmentation"}))
_REGRESSION = (("kind",), frozenset({"regression"}))
_OWN_RATES = (("site_rates", "adapt"), frozenset({"quality", "updates", "both"}))
_QUALITY_READ = (("site_rates", "adapt"), frozenset({"quality", "both"}))
_BUFFERED = (("pace", "mode"), frozenset({"buffered"}))
_SHARED_NOISE = (("privacy", "mechanism"), frozenset({"shared-noise"}))
_SITE_LEVEL = (("privacy", "mechanism"), frozenset({"site-level"}))
NEEDED_WITH: dict[Path, tuple[Path, frozenset[str]]] = {
    ("secure_aggregation", "maximum_sites"): _HIDDEN_SUM,
    ("secure_aggregation", "maximum_weight"): _HIDDEN_SUM,
    ("transport", "upload"): _HIDDEN_SUM,
    ("privacy", "honest_fraction"): _SHARED_NOISE,
    ("privacy", "unit"): _SITE_LEVEL,
    ("privacy", "update_norm"): _SITE_LEVEL,
    ("strategy", "weighting"): _SITE_LEVEL,
    ("table", "features"): _TABULAR,
    ("segmentation", "loss"): _SEGMENTATION,
    ("regression", "low"): _REGRESSION,
    ("regression", "high"): _REGRESSION,
    ("regression", "unit"): _REGRESSION,
    ("regression", "loss"): _REGRESSION,
    ("label", "time_column"): _TABULAR,
    ("pace", "buffer"): _BUFFERED,
    ("site_rates", "adapt"): _OWN_RATES,
    ("site_rates", "quality_epsilon"): _QUALITY_READ,
}
"""Advanced fields that stand with the others as soon as a field has one of these values: the study needs them then."""
CHOICE_WORDS: dict[Path, dict[str, str]] = {
    ("kind",): {
        "classification": "classes of images",
        "tabular": "the rows of a table",
        "segmentation": "masks of images",
        "regression": "a number for each image",
    },
    ("segmentation", "loss"): {
        "dice-cross-entropy": "Dice and cross entropy",
        "dice": "Dice",
        "cross-entropy": "cross entropy of pixels",
    },
    ("regression", "loss"): {"huber": "Huber's: large errors count less", "squared": "squared error"},
    ("participants", "deadline"): {"fixed": "as long as stated", "learned": "as long as hospitals usually need"},
    ("participants", "late"): {"refuse": "it is refused", "fold": "it counts in the next round, weighted down"},
    ("pace", "mode"): {"synchronous": "when a round's hospitals have answered", "buffered": "when enough updates wait"},
    ("strategy", "name"): {
        "fedavg": "to the mean of the hospitals' models (FedAvg)",
        "fedavgm": "with momentum (FedAvgM)",
        "fedadam": "with a rate for each weight (FedAdam)",
        "fedyogi": "with a rate for each weight that changes slowly (FedYogi)",
        "fedadagrad": "with a rate for each weight that only falls (FedAdagrad)",
        "fedexp": "further where hospitals disagree (FedExp)",
        "scaffold": "to the mean, with drift corrected at the hospitals (SCAFFOLD)",
    },
    ("strategy", "join"): {
        "mean": "their mean",
        "median": "the median of each value",
        "trimmed-mean": "the mean without the largest and smallest values",
        "krum": "the one nearest to the others (Krum)",
        "multi-krum": "the mean of those nearest to the others (multi-Krum)",
        "geometric-median": "their geometric median",
    },
    ("preprocessing", "preset"): {
        "none": "none, stated below",
        "chest-xray": "chest radiographs",
        "ct-abdomen": "CT of the abdomen",
        "ct-lung": "CT of the lung",
        "brain-mri": "MRI of the brain",
        "mammography": "mammography",
        "ultrasound": "ultrasound",
    },
    ("label", "balance"): {
        "stated": "stated here",
        "quality": "each hospital's own, made of its noised quality figures",
    },
    ("site_rates", "adapt"): {
        "none": "the same for all",
        "quality": "smaller where data are of poor quality",
        "updates": "smaller where updates disagree or swing",
        "both": "by data quality and by updates",
    },
    ("strategy", "weighting"): {
        "patients": "its training patients",
        "equal": "as much as any other",
        "noise": "what its noise leaves of it",
    },
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
    (
        "privacy",
        "count_epsilon",
    ): "Noise on each hospital's number of training patients: 0.5 moves it by two or so. Left out: the exact number.",
    (
        "privacy",
        "receipt_epsilon",
    ): "How many of a hospital's patients are still there, told with every update; noise of 0.05 moves it by twenty "
    "or so, and epsilon pays for every task. Left out: no number, and the hub sees no round on a fraction of them.",
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

    def needed(self, values: Mapping[Path, Any]) -> bool:
        """Tell whether what was chosen so far calls for this field, which most studies do without."""
        if self.path not in NEEDED_WITH:
            return False
        chosen, needing = NEEDED_WITH[self.path]
        return values.get(chosen) in needing

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
        if "properties" in items or "oneOf" in items:
            return "records", ()
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
