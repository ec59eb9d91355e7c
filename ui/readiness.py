"""What a hospital told of its readiness for a study, as a study's page shows it beside the hospital."""

from dataclasses import dataclass
from html import escape

from ui import markup
from ui.wording import duration, plural

HOURS_A_WEEK = 168
LABELS = {
    "found": "a table with the study's columns is there",
    "no-column": "the table lacks a column of the study",
    "missing": "there is no table of labels yet",
    "in-reports": "read from structured reports",
}
CLASS_NAMES = {
    "every": "every class has a local name",
    "some": "only some classes have local names",
    "none": "no local names are set: labels must use the study's own words",
}
TOO_SMALL = {"disk": "disk", "memory": "memory"}


@dataclass(frozen=True)
class Readiness:
    """The last report of a hospital; none of it depends on its patients."""

    number: int
    policy: str
    tasks: str
    train_hours: int
    labels: str
    class_names: str
    decoders: str
    device: str
    disk: str
    memory: str
    minutes_a_round: int | str
    stand_ins: int
    epsilon: float | None = None
    noise_multiplier: float | None = None
    received_at: float | None = None


def readiness_facts(told: Readiness) -> str:
    """Return what was told as names and values; what nobody looked at is left out."""
    pairs = [("a round takes", _pace(told)), ("machine", _machine(told)), ("trains", _hours(told))]
    pairs += [("labels", LABELS[told.labels])] if told.labels in LABELS else []
    pairs += [("class names", CLASS_NAMES[told.class_names])] if told.class_names in CLASS_NAMES else []
    pairs += [("policy", "objects to the study's terms")] if told.policy == "objects" else []
    return markup.facts([(name, escape(value)) for name, value in pairs if value])


def _pace(told: Readiness) -> str:
    if told.minutes_a_round == "not-measured":
        return "not measured"
    with_whom = f"with {plural(told.stand_ins, 'stand-in')} for patients"
    if isinstance(told.minutes_a_round, str):
        return f"more than a day, {with_whom}"
    return f"at most {duration(60.0 * told.minutes_a_round)}, {with_whom}"


def _machine(told: Readiness) -> str:
    kind = {"cpu": "no GPU", "gpu": "GPU"}.get(told.device, "")
    short = [word for name, word in TOO_SMALL.items() if getattr(told, name) == "too-small"]
    faults = [f"too little {' and '.join(short)}"] if short else []
    faults += ["some image formats cannot be read"] if told.decoders == "some-missing" else []
    return ", ".join(word for word in (kind, *faults) if word)


def _hours(told: Readiness) -> str:
    if told.tasks == "draining":
        return "takes no new tasks at present"
    return "at any hour" if told.train_hours >= HOURS_A_WEEK else f"in {told.train_hours} hours of the week"
