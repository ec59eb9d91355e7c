"""The study specification: what hospitals approve, word for word.

A study is written as YAML or JSON, parsed here, and identified by the digest of its canonical JSON (RFC 8785). Whatever
a site's training depends on is in it; a changed specification has another digest and needs another approval.
What parses is legal in itself: combinations that cannot keep their promise are refused in `study_rules.py`, with the
reason and the remedy. Whether a hospital *wants* it is the site's policy (`site_node/governance/policy.py`).

    >>> study = parse_study({"name": "tiny", "cohort": {"modality": ["DX"]}, "label": {"classes": ["no", "yes"]},
    ...                      "network": {"name": "densenet"}, "rounds": 2, "privacy": {"epsilon": None}})
    >>> study.network.normalisation
    'group'
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from protocol.cohort_terms import Cohort
from protocol.digest import canonical_json, digest_of_bytes
from protocol.errors import SpecificationError
from protocol.label import Label
from protocol.outcome import Outcome
from protocol.preprocessing import Preprocessing
from protocol.privacy_terms import Privacy
from protocol.site_rates import SiteRates
from protocol.study_parts import (
    Evaluation,
    Name,
    Network,
    Pace,
    Part,
    Participants,
    Personal,
    SecureAggregation,
    ShortText,
    Splits,
    Start,
    Strategy,
    Training,
    Transport,
)
from protocol.table import Table
from protocol.task_terms import Regression, Segmentation

MAX_STUDY_BYTES = 256 * 1024


class StudySpec(Part):
    """A research study, as hospitals approve it.

    Guarantee: two specifications with the same digest train the same way; `digest` is over `canonical_bytes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.study/1"] = Field(default="wardround.study/1", alias="schema")
    name: Name
    title: ShortText = ""
    description: Annotated[str, StringConstraints(max_length=4000)] = ""
    kind: Literal["classification", "tabular", "segmentation", "regression"] = Field(
        default="classification",
        description="classification: of images; tabular: from the rows of a table; segmentation: masks of images; "
        "regression: a number for each image",
    )
    seed: int = Field(default=0, ge=0, lt=2**53, description="version 0 is built from it, at any site")
    cohort: Cohort = Cohort()
    label: Label
    splits: Splits = Splits()
    preprocessing: Preprocessing = Preprocessing()
    table: Table = Table()
    segmentation: Segmentation = Segmentation()
    regression: Regression = Regression()
    network: Network
    training: Training = Training()
    personal: Personal = Personal()
    strategy: Strategy = Strategy()
    site_rates: SiteRates = SiteRates()
    rounds: int = Field(ge=1, le=100_000)
    participants: Participants = Participants()
    pace: Pace = Pace()
    start: Start = Start()
    privacy: Privacy
    transport: Transport = Transport()
    secure_aggregation: SecureAggregation = SecureAggregation()
    evaluation: Evaluation = Evaluation()

    @property
    def outcome(self) -> Outcome:
        """Say what the model tells of a patient; training, evaluation, admission and pages choose by it."""
        if self.kind in ("segmentation", "regression"):
            return self.kind
        if self.is_survival:
            return "survival"
        if self.label.several:
            return "multi-label"
        return "multi-class" if len(self.label.classes) > 2 else "binary"

    @property
    def is_survival(self) -> bool:
        """Tell whether the study learns when an event happens, and not whether."""
        return self.label.time_column is not None

    @property
    def is_judged_by_values(self) -> bool:
        """Tell whether patients are judged by a figure each (Dice, error) and not by a score against a label."""
        return self.kind in ("segmentation", "regression")

    @property
    def maximum_training_tasks(self) -> int:
        """The most training tasks a site can be given; noise is calibrated to it."""
        return self.rounds + self.privacy.spare_tasks

    @property
    def maximum_steps(self) -> int:
        """The most noised steps a site can be made to take."""
        return self.maximum_training_tasks * self.noised_steps

    @property
    def local_steps(self) -> int:
        """Return the steps of a round: as stated, or those of the stated epochs of round(1 / sampling_rate) draws."""
        terms = self.training
        if terms.local_epochs is None:
            return terms.local_steps or 0  # 0 is refused by the rules
        return terms.local_epochs * max(1, round(1.0 / terms.sampling_rate))

    @property
    def noised_steps(self) -> int:
        """Return the steps of a round that touch patients: a personal model (Ditto) takes as many of its own."""
        return self.local_steps * (1 if self.personal.ditto is None else 2)

    def canonical_bytes(self) -> bytes:
        """Return the canonical JSON that is stored, signed and digested."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @property
    def digest(self) -> str:
        """Return the digest that approvals name."""
        return digest_of_bytes(self.canonical_bytes())


def parse_study(data: Any) -> StudySpec:
    """Parse a specification from plain data and check every rule.

    Raises: SpecificationError naming each faulty field, what was expected and the remedy.
    """
    from protocol.study_rules import problems_of

    if not isinstance(data, dict):
        raise SpecificationError(["Expected a mapping of keys (name, cohort, label, network, ...) at the top level."])
    try:
        study = StudySpec.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        raise SpecificationError([_sentence(fault) for fault in faults]) from None
    problems = problems_of(study)
    if problems:
        raise SpecificationError(problems)
    return study


def study_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a specification; the launch form of the UI is made from it."""
    return StudySpec.model_json_schema(by_alias=True)


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key. Check its spelling against `wardround hub study-schema`."
    if error["type"] == "missing":
        return f"{where}: missing. Add it; `wardround hub study-schema` describes it."
    if error["type"] == "string_type":
        return f"{where}: {error['msg']}. Put it in quotes."
    return f"{where}: {error['msg']}."
