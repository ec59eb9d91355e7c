"""What this hospital allows: policy.yaml, and a pure rule on a study. The gate reads the file before every decision.

A study that asks for less protection than the policy demands does not run, whatever the hub says. A missing or broken
policy allows nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest
from protocol.messages import Reason
from protocol.noised_counts import figure_events
from protocol.privacy_accounting import PrivacyEvent, epsilon_of, held_out_event, maximum_evaluations, training_events
from protocol.privacy_filter import Composition
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.study import StudySpec
from site_node.errors import SettingsError
from site_node.settings import faults, read_yaml

ROUNDING = 1e-9
SumMethod = Literal["masking", "homomorphic"]
_TEMPLATE = """\
# What this hospital allows. The gate reads this file before every decision; a change needs no restart.
# `wardround site policy DIR` shows how it is understood, and what it means for the studies that were proposed.

# Who approves a study: a person (`wardround site approve`), or automatically whatever this policy allows.
approval: {approval}            # person | automatic
approval_days: 365          # an approval ends after so many days
tell_readiness: asked       # asked | always: may the researcher be told, before anybody decides, whether this place is
                            # ready (disk, memory, minutes a round; never patients)? asked: only by
                            # `wardround site check --send`; always: of each study that this policy allows

networks: [convnet, densenet, resnet]  # permitted networks (`wardround site networks`), or: any
modalities: [CR, DX]          # DICOM modalities that studies may ask for, or: any
minimum_patients: 10          # with fewer training patients this hospital does not train; and automatic approval leaves
                            # to a person whose exact number, with those told before, would tell fewer apart, and
                            # every study that sets a larger minimum of its own
minimum_held_out_patients: 10  # automatic approval leaves to a person whose un-noised evaluation judges fewer
hold_out_trained: person    # person | always: may automatic approval hold patients out un-noised on whom another study
                            # trained with differential privacy? With person, such a study waits for one

# Differential privacy.
dp_required: true           # refuse studies that train without it
dp_units: [patient]         # what it must hide: a patient; with site too, studies that noise a site's whole update
mechanisms: any             # permitted ways of it: dp-sgd, site-level, shared-noise (relies on others' noise), or: any
maximum_honest_fraction: 0.9  # shared-noise: refuse studies that count on more of the other hospitals than this
maximum_epsilon: 8          # the most that one study may spend
maximum_delta: 1.0e-4
maximum_count_epsilon: null  # a number: refuse studies in which the number of training patients leaves exact, or with
                            # less noise than this epsilon gives: privacy.count_epsilon (0.5 moves it by two or so) and
                            # privacy.receipt_epsilon, which tells it again, times all tasks, must stay within it.
                            # A study with either waits for a person, also under automatic approval
lifetime_epsilon: 24        # the most that all studies together may spend of one patient; the ledger never forgets
lifetime_delta: 1.0e-3
composition: renyi          # how studies add up: renyi (many small ones fit) | sum (a few as large as the lifetime)
noised_evaluation: false    # refuse studies whose held-out score histograms are not noised
summed_evaluation: false    # refuse studies in which the hub sees this hospital's held-out histograms by themselves
                            # two sums may differ by this hospital's counts: set noised_evaluation too

secure_aggregation_required: false  # true: refuse studies in which the hub sees this hospital's update by itself
                            # [masking]: only this way; with homomorphic, other hospitals could open our update
maximum_update_megabytes: 2048   # nothing larger leaves, and no larger version is fetched from the hub
allowed_bundles: []              # digests of MONAI Bundles whose unneeded code `bundle import --policy` of this file
                            # passes over; the gate does not ask it: the study that comes out holds no code
"""


def policy_text(approval: str = "person") -> str:
    """Return a commented policy.yaml with careful values."""
    return _TEMPLATE.format(approval=approval)


class Policy(BaseModel):
    """The keys of policy.yaml; those left out have the template's values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approval: Literal["person", "automatic"] = "person"
    approval_days: int = Field(default=365, ge=1, le=3650)
    tell_readiness: Literal["asked", "always"] = "asked"
    networks: list[str] | Literal["any"] = ["convnet", "densenet", "resnet"]
    modalities: list[str] | Literal["any"] = ["CR", "DX"]
    minimum_patients: int = Field(default=10, ge=1)
    minimum_held_out_patients: int = Field(default=10, ge=1)
    hold_out_trained: Literal["person", "always"] = "person"
    dp_required: bool = True
    dp_units: list[Literal["patient", "site"]] = ["patient"]
    mechanisms: list[Literal["dp-sgd", "site-level", "shared-noise"]] | Literal["any"] = "any"
    maximum_honest_fraction: float = Field(default=0.9, gt=0, le=1)
    maximum_epsilon: float = Field(default=8.0, gt=0, allow_inf_nan=False)
    maximum_delta: float = Field(default=1e-4, gt=0, lt=1)
    maximum_count_epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    lifetime_epsilon: float = Field(default=24.0, gt=0, allow_inf_nan=False)
    lifetime_delta: float = Field(default=1e-3, gt=0, lt=1)
    composition: Composition = "renyi"
    noised_evaluation: bool = False
    summed_evaluation: bool = False
    secure_aggregation_required: bool | Annotated[list[SumMethod], Field(min_length=1)] = False
    maximum_update_megabytes: int = Field(default=2048, ge=1)
    allowed_bundles: list[Digest] = []


@dataclass(frozen=True)
class Objection:
    """Why a study or task is not taken: the word that may leave, and the sentence for this hospital's own eyes."""

    reason: Reason
    sentence: str


def load_policy(path: Path) -> Policy:
    """Read policy.yaml.

    Raises: SettingsError naming the faulty keys; nothing is allowed then.
    """
    written = read_yaml(path, "Without a policy nothing is allowed. `wardround site init` writes an example.")
    try:
        return Policy.model_validate(written)
    except ValidationError as error:
        raise SettingsError(
            f"{path} is not usable: {faults(error)}.", "Until it is corrected nothing is allowed."
        ) from None


def objection_to(policy: Policy, study: StudySpec, noise_multiplier: float | None) -> Objection | None:
    """Return the first objection of the hospital's policy to a study with the hub's noise, or None. Pure."""
    return next(iter(objections_to(policy, study, noise_multiplier)), None)


def objections_to(policy: Policy, study: StudySpec, noise_multiplier: float | None) -> list[Objection]:
    """Return all objections of the hospital's policy, in their order; where it has none, that to the noise. Pure."""
    checks = (_network(policy, study), _modality(policy, study), *_protection(policy, study))
    found = [Objection(Reason.POLICY, sentence) for sentence in checks if sentence]
    noise = None if found else noise_objection(study, noise_multiplier)
    return found if noise is None else [noise]


def noise_objection(study: StudySpec, noise_multiplier: float | None) -> Objection | None:
    """Check the hub's calibration against the study's target, by the hospital's own accounting."""
    target = study.privacy.epsilon
    if (target is None) != (noise_multiplier is None):
        return Objection(Reason.BAD_TASK, "The hub's noise does not fit the study: noise goes with privacy.epsilon.")
    if target is None or noise_multiplier is None:
        return None
    if not 0 < noise_multiplier < float("inf"):
        return Objection(Reason.BAD_TASK, "The hub's noise is not a positive number.")
    events = training_events(study, noise_multiplier, study.maximum_training_tasks)
    epsilon = epsilon_of(events, study.privacy.delta)
    if epsilon <= target * (1 + ROUNDING):
        return None
    sentence = f"The hub's noise {noise_multiplier:g} gives epsilon {epsilon:.3f}, above the study's {target:g}."
    return Objection(Reason.BAD_TASK, sentence)


@dataclass(frozen=True)
class Patients:
    """How many patients of this hospital a study touches, as counted before anybody approves it."""

    training: int
    held_out: int


def planned_events(
    study: StudySpec, noise_multiplier: float | None, patients: Patients
) -> list[tuple[str, PrivacyEvent | None]]:
    """Return what a study may spend at most of this hospital's patients: (which patients, event). Pure.

    The event None says: trained on, or judged on, without differential privacy; noised figures (of quality, of numbers)
    are charged beside it. Patients whom the study does not touch are not charged.
    """
    planned: list[tuple[str, PrivacyEvent | None]] = []
    if patients.training:
        tasks = study.maximum_training_tasks
        bare = [None, *figure_events(study)]
        spent = bare if noise_multiplier is None else training_events(study, noise_multiplier, tasks)
        planned += [("training", event) for event in spent]
    if patients.held_out:
        planned.append(("held-out", held_out_event(study)))
    return planned


def _network(policy: Policy, study: StudySpec) -> str | None:
    if policy.networks == "any" or study.network.name in policy.networks:
        return None
    return f"The network {study.network.name!r} is not among `networks`: {', '.join(policy.networks)}."


def _modality(policy: Policy, study: StudySpec) -> str | None:
    if policy.modalities == "any" or study.kind == "tabular":  # no image is read
        return None
    if not study.cohort.modality:
        return "The study is open to every modality; `modalities` allows only " + ", ".join(policy.modalities) + "."
    foreign = sorted(set(study.cohort.modality) - set(policy.modalities))
    return f"The modality {', '.join(foreign)} is not among `modalities`." if foreign else None


def _protection(policy: Policy, study: StudySpec) -> list[str | None]:
    epsilon, delta = study.privacy.epsilon, study.privacy.delta
    found: list[str | None] = [_evaluation(policy, study), _figures(policy, study), _counts(policy, study)]
    found.append(_secure_aggregation(policy, study))
    if epsilon is None and policy.dp_required:
        found.append("The study trains without differential privacy; `dp_required` refuses that.")
    if epsilon is not None and policy.mechanisms != "any" and study.privacy.mechanism not in policy.mechanisms:
        found.append(f"privacy.mechanism {study.privacy.mechanism!r} is not among `mechanisms`.")
    honest = study.privacy.honest_fraction
    if study.privacy.mechanism == "shared-noise" and honest > policy.maximum_honest_fraction:
        found.append(
            f"privacy.honest_fraction {honest:g} is above `maximum_honest_fraction` {policy.maximum_honest_fraction:g}."
        )
    if policy.dp_required and study.privacy.unit not in policy.dp_units:
        found.append(f"The study's unit of privacy, {study.privacy.unit!r}, is not among `dp_units`.")
    if epsilon is not None and epsilon > policy.maximum_epsilon:
        found.append(f"epsilon {epsilon:g} is above `maximum_epsilon` {policy.maximum_epsilon:g}.")
    if epsilon is not None and delta > policy.maximum_delta:
        found.append(f"delta {delta:g} is above `maximum_delta` {policy.maximum_delta:g}.")
    return found


def _figures(policy: Policy, study: StudySpec) -> str | None:
    """Bound what noised figures spend by themselves; where training is private, privacy.epsilon covers them."""
    asked = {"site_rates.quality_epsilon": study.site_rates.quality_epsilon, **_told_numbers(study)}
    return None if study.privacy.epsilon is not None else _sum_above(asked, "maximum_epsilon", policy.maximum_epsilon)


def _counts(policy: Policy, study: StudySpec) -> str | None:
    """Bound what tells how many training patients there are: the number of the approval, and those of all receipts."""
    most, asked = policy.maximum_count_epsilon, _told_numbers(study)
    if most is None:
        return None
    if study.privacy.count_epsilon is None:
        return "The number of training patients would leave exact; `maximum_count_epsilon` demands noise."
    return _sum_above(asked, "maximum_count_epsilon", most)


def _told_numbers(study: StudySpec) -> dict[str, float | None]:
    each, tasks = study.privacy.receipt_epsilon, study.maximum_training_tasks
    receipts = {} if each is None else {f"{tasks} times privacy.receipt_epsilon {each:g} =": each * tasks}
    return {"privacy.count_epsilon": study.privacy.count_epsilon, **receipts}


def _sum_above(asked: Mapping[str, float | None], key: str, most: float) -> str | None:
    spent = {asker: epsilon for asker, epsilon in asked.items() if epsilon is not None}
    if sum(spent.values()) <= most * (1 + ROUNDING):
        return None
    said = " and ".join(f"{asker} {epsilon:g}" for asker, epsilon in spent.items())
    return f"{said} {'is' if len(spent) == 1 else 'are'} above `{key}` {most:g}."


def _secure_aggregation(policy: Policy, study: StudySpec) -> str | None:
    required, method = policy.secure_aggregation_required, study.secure_aggregation.method
    if required and method == "none":
        return "The hub would see this hospital's update alone; `secure_aggregation_required` refuses that."
    if isinstance(required, list) and method not in required:
        return f"secure_aggregation.method {method!r} is not among `secure_aggregation_required`."
    return None


def _evaluation(policy: Policy, study: StudySpec) -> str | None:
    if policy.summed_evaluation and not sums_histograms(study):
        return "The hub would see this hospital's held-out histograms alone; `summed_evaluation` refuses that."
    event = held_out_event(study)
    if event is None:
        refused = "Held-out histograms are not noised; `noised_evaluation` demands it."
        return refused if policy.noised_evaluation else None
    epsilon = epsilon_of([event], study.privacy.delta)
    if epsilon <= policy.maximum_epsilon:
        return None
    return (
        f"{maximum_evaluations(study)} noised evaluations spend epsilon {epsilon:.3g} of the held-out patients, above "
        f"`maximum_epsilon` {policy.maximum_epsilon:g}. The study should lower evaluation.at_most or noise_epsilon."
    )
