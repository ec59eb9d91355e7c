"""A study in plain words, for the person who decides on it: what it does, what leaves, whom one trusts, what it costs.

Everything here is read from the specification that is approved and from this hospital's own ledger; nothing leaves.
"""

import sqlite3
from typing import Any

from protocol.held_out import histograms_of_split
from protocol.privacy_accounting import epsilon_of, maximum_evaluations
from protocol.privacy_filter import FREE, Cost, LifetimeBudget
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.site_rates import FIGURES
from protocol.study import StudySpec
from site_node.budget_report import MEANING, percent, share_used
from site_node.governance.ledger_entries import Group
from site_node.governance.patient_accounts import Accounts, charged_patients, plus
from site_node.governance.policy import Policy, planned_events
from site_node.governance.privacy_ledger import accounts, is_charged, study_costs
from site_node.governance.records import StudyRecord

Sections = dict[str, list[str]]
UNCOUNTED = "This hospital's patients are still being counted: the figures that would leave are not known yet."


def summary_of(database: sqlite3.Connection, record: StudyRecord, policy: Policy) -> Sections:
    """Return the whole study in plain words, grouped under headings.

    Patients appear as numbers of the cohort and as the one who was charged most, as in `budget_report.py`.
    """
    study = record.study
    return {
        "The study": _identity(record, study),
        "What is trained, on whom": _training(study),
        "What leaves this hospital, and how it is protected": _leaves(study),
        "Who must be trusted": _trust(study),
        "What it costs this hospital's patients at most": _costs(database, record, policy),
    }


def lines_of(sections: Sections) -> list[str]:
    """Return a summary as lines for a terminal."""
    return [line for title, own in sections.items() for line in (f"{title}:", *(f"  {text}" for text in own))]


def _identity(record: StudyRecord, study: StudySpec) -> list[str]:
    found = [f"{study.name}{f': {study.title}' if study.title else ''}", f"Digest: {record.digest}"]
    if study.description:
        found.append(f"Description: {study.description}")
    if study.start.weights is None:
        return [*found, f"It starts from weights drawn by seed {study.seed}, which any site can rebuild."]
    origin = f", of study {study.start.study}, version {study.start.version}" if study.start.study else ""
    return [*found, f"It starts from the weights {study.start.weights}{origin}."]


def _training(study: StudySpec) -> list[str]:
    steps = study.noised_steps
    local = (
        f"{steps} steps a round at this hospital, each patient drawn with probability {study.training.sampling_rate:g}"
    )
    asked = f"{study.rounds} rounds, at most {study.maximum_training_tasks} training tasks; {local}."
    return [
        f"Patients: {_cohort(study)}. A hospital with fewer than {study.cohort.minimum_patients} does not train.",
        _learned(study),
        f"Held out, where the labels say nothing else: {study.splits.validation:.0%} for validation, "
        f"{study.splits.test:.0%} for the test.",
        f"Network: {study.network.name}. {asked}",
        _personal(study),
    ]


def _learned(study: StudySpec) -> str:
    classes = " / ".join(study.label.classes)
    if study.kind == "segmentation":
        return f"Masks of the images, from masks.csv or from DICOM SEG and RTSTRUCT; classes {classes}."
    if study.kind == "regression":
        terms = study.regression
        unit = f" {terms.unit}" if terms.unit else ""
        return f"Label: column {study.label.column!r}, a number from {terms.low:g} to {terms.high:g}{unit}."
    if study.outcome == "multi-label":
        where = "a column for each" if study.label.separator is None else f"named in column {study.label.column!r}"
        known = "one that is not known is left out"
        return f"Label: findings {classes}, any number of them, {where}; {known}.{_rare(study)}"
    outcome = "time until the event" if study.is_survival else f"classes {classes}"
    return f"Label: column {study.label.column!r}, {outcome}.{_rare(study)}"


def _rare(study: StudySpec) -> str:
    label = study.label
    weights = ", ".join(f"{name} {weight:g}" for name, weight in zip(label.classes, label.weights, strict=False))
    said = [f"Stated weights in the loss: {weights}."] if weights else []
    if label.balance == "quality":
        said.append("Weights in the loss by this hospital's noised quality figures.")
    said += [f"Focal loss with exponent {label.focal:g}."] if label.focal else []
    return "".join(f" {sentence}" for sentence in said)


def _cohort(study: StudySpec) -> str:
    cohort, open_to = study.cohort, "any"
    if study.kind == "tabular":
        columns = ", ".join(feature.column for feature in study.table.features)
        return f"rows of this hospital's table, columns {columns}"
    terms: dict[str, list[str]] = {
        "modality": cohort.modality,
        "body part": cohort.body_part,
        "view": cohort.view,
        "sex": [*cohort.sex],
    }
    further = {
        "manufacturer": cohort.manufacturer,
        "protocol": cohort.protocol,
        "series description": cohort.series_description,
        "from": [str(day) for day in (cohort.date_from,) if day],
        "until": [str(day) for day in (cohort.date_until,) if day],
    }
    terms |= {name: values for name, values in further.items() if values}
    said = [f"{name} {' or '.join(values) or open_to}" for name, values in terms.items()]
    low, high = cohort.age_min_years, cohort.age_max_years
    ages = open_to if low is None and high is None else f"{low or 0} to {'any' if high is None else high} years"
    return ", ".join([*said, f"age {ages}"])


def _personal(study: StudySpec) -> str:
    if study.personal.ditto is not None:
        return "A personal model (Ditto) is trained beside and stays here; that doubles the steps."
    if study.personal.keep:
        return f"These tensors stay here, as this hospital's own: {', '.join(study.personal.keep)}."
    return "No part of the model is this hospital's own."


def _leaves(study: StudySpec) -> list[str]:
    return [
        _counts(study),
        *_rates(study),
        f"In each round: one update of the model. {_noise(study)}",
        _receipts(study),
        f"Who sees the update: {_sums(study)}",
        f"At most {maximum_evaluations(study)} times: counts of held-out patients by {_judged_by(study)}. "
        f"{_judging(study)}",
        "No image, no label and no patient identifier leaves.",
    ]


def _judged_by(study: StudySpec) -> str:
    return {"segmentation": "Dice coefficient of each class", "regression": "error"}.get(study.kind, "score")


def _counts(study: StudySpec) -> str:
    epsilon = study.privacy.count_epsilon
    if epsilon is None:
        how = "exact, neither noised nor charged"
    else:
        how = f"noised here (two-sided geometric, scale {1 / epsilon:.3g}; epsilon {epsilon:g}) and charged to them"
    return f"With the approval: the number of training patients ({how}), and whether patients are held out."


def _receipts(study: StudySpec) -> str:
    """Say what the receipt of each update tells of how many patients it was made."""
    epsilon = study.privacy.receipt_epsilon
    if epsilon is None:
        return (
            "With each update a receipt: the number of training patients once more, the steps taken and this "
            "software's release; not how many patients were used."
        )
    return (
        "With each update a receipt: how many of these patients have not opted out since, noised here afresh each time "
        f"(two-sided geometric, scale {1 / epsilon:.3g}; epsilon {epsilon:g}) and charged to them for all "
        f"{study.maximum_training_tasks} tasks. How many budgets are spent does not change it."
    )


def _rates(study: StudySpec) -> list[str]:
    """Say what the hub makes a learning rate for this hospital of, and how far that may go."""
    terms = study.site_rates
    if terms.adapt == "none":
        return []
    of = {
        "quality": "these figures",
        "updates": "how this hospital's updates lie to the others' and to its last one",
        "both": "these figures, and how this hospital's updates lie to the others' and to its last one",
    }[terms.adapt]
    rate = (
        f"From {of} the hub sets this hospital's own learning rate: from round {terms.from_round} on the study's times "
        f"{terms.least:g} to {terms.most:g}. People at the hub see the factor and what it was made of."
    )
    if terms.quality_epsilon is None:
        return [rate]
    figures = (
        "With the approval, once: three figures of the data's quality: how many training patients are positive, have a "
        f"damaged or missing {'row' if study.kind == 'tabular' else 'image'}, have one twice. Each is noised here "
        f"(two-sided geometric, scale {FIGURES / terms.quality_epsilon:.3g}; epsilon {terms.quality_epsilon:g} for the "
        "three) and charged to these patients."
    )
    return [figures, rate]


def _noise(study: StudySpec) -> str:
    terms = study.privacy
    if terms.epsilon is None:
        return "NO DIFFERENTIAL PRIVACY: an update of few patients can be nearly a picture of them."
    stated = f"epsilon {terms.epsilon:g}, delta {terms.delta:g}, for each {terms.unit}"
    how = {
        "dp-sgd": "noised here, at each step",
        "shared-noise": "noised by all hospitals together, each adding a share",
        "site-level": "the whole update cut and noised here",
    }[terms.mechanism]
    return f"Differential privacy by {terms.mechanism} ({how}): {stated}."


def _sums(study: StudySpec) -> str:
    return {
        "none": "the hub sees it by itself.",
        "masking": "nobody; it leaves under masks, and the hub learns the sum over the hospitals alone.",
        "homomorphic": "it leaves encrypted, and the hub learns the sum alone; a deciding hospital could open it.",
    }[study.secure_aggregation.method]


def _judging(study: StudySpec) -> str:
    noise = study.evaluation.noise_epsilon
    noised = "NOT NOISED: held-out patients have no DP." if noise is None else f"Noised: epsilon {noise:g} each time."
    parts = histograms_of_split(study)
    if noise is not None and parts > 1:
        noised = f"Noised: epsilon {noise:g} each time, shared out among the counts of {parts} classes."
    seen = "The hub learns their sum alone" if sums_histograms(study) else "The hub sees this hospital's by themselves"
    return f"{noised} {seen}."


def _trust(study: StudySpec) -> list[str]:
    terms, method = study.privacy, study.secure_aggregation.method
    found = ["This hospital's own people, machines and this software."]
    if terms.epsilon is None:
        found.append("Everybody who receives an update or a version: nothing bounds what it tells of a patient.")
    elif terms.mechanism == "shared-noise":
        found.append(
            "The OTHER HOSPITALS: the promise holds only while at most "
            f"{1 - terms.honest_fraction:.0%} of them (honest_fraction {terms.honest_fraction:g}) collude with the hub."
        )
    else:
        found.append("For the promise of epsilon nobody else: the noise is added before anything leaves.")
    if method != "none":
        found.append("For hiding the single update: that the pinned keys of the other hospitals are really theirs.")
    if method == "homomorphic":
        found.append("For that too: the deciding hospitals, which must not hand their key to the hub.")
    return found


def _costs(database: sqlite3.Connection, record: StudyRecord, policy: Policy) -> list[str]:
    if record.state == "counting":
        return [UNCOUNTED, MEANING]
    study, held = record.study, accounts(database, policy)
    costs = study_costs(study, record.noise_multiplier, held.budget)
    charged = is_charged(database, record.digest)
    found = [_figures(record)]
    groups: tuple[Group, ...] = ("training", "held-out")
    for group in groups:
        cohort = record.cohorts[group]
        if cohort is not None:
            found.append(_group_line(database, held, record, group, costs[group], charged))
    return [*found, MEANING]


def _figures(record: StudyRecord) -> str:
    judges = "some patients are held out" if record.held_out_patients else "no patient is held out"
    is_noised = record.study.privacy.count_epsilon is not None and record.training_patients > 0
    said = "training patients, noised (the exact number stays here)" if is_noised else "training patients"
    return f"Figures that leave with the approval: {record.training_patients} {said}; {judges}."


def _group_line(
    database: sqlite3.Connection, held: Accounts, record: StudyRecord, group: Group, cost: Cost, charged: bool
) -> str:
    study = record.study
    planned = planned_events(study, record.noise_multiplier, record.patients)
    events = [event for which, event in planned if which == group]
    epsilon = epsilon_of([event for event in events if event is not None], study.privacy.delta)
    if not events or None in events:
        beside = f" {_noised_figures(study)}: epsilon {epsilon:.3g}, charged." if epsilon else ""
        return f"{group} patients: no differential privacy, so that no charge says what is told of them.{beside}"
    worst = _most_charged(database, held, str(record.cohorts[group]))
    before = (max(0.0, worst[0] - cost[0]), max(0.0, worst[1] - cost[1])) if charged else worst
    return (
        f"{group} patients: at most epsilon {epsilon:.3g} at delta {study.privacy.delta:g}. Of the lifetime budget of "
        f"the patient who was charged most {_percent(before, held.budget)} is used before the study, and "
        f"{_percent(plus(before, cost), held.budget)} after it."
    )


def _noised_figures(study: StudySpec) -> str:
    told = {
        "figures of the data's quality": study.site_rates.reads_quality,
        "the number of training patients": study.privacy.count_epsilon is not None,
        "the receipts": study.privacy.receipt_epsilon is not None,
    }
    names = [name for name, is_told in told.items() if is_told]
    said = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return said[:1].upper() + said[1:]


def _most_charged(database: sqlite3.Connection, held: Accounts, cohort: str) -> Cost:
    rows = database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))
    members = {row[0] for row in rows}
    own = max((cost for who, cost in charged_patients(database, held) if who in members), default=FREE)
    return plus(held.everybody, own)


def _percent(spent: Cost, budget: LifetimeBudget) -> str:
    return percent(share_used(spent, budget.limit))


def document_of(database: sqlite3.Connection, record: StudyRecord, policy: Policy) -> dict[str, Any]:
    """Return the summary and the specification itself, for a script."""
    return {
        "digest": record.digest,
        "state": record.state,
        "summary": summary_of(database, record, policy),
        "specification": record.study.model_dump(mode="json", by_alias=True),
    }
