"""What the hub's API says of a study at one moment, as the demo shows it. Pure: plain data in, values out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ENDED = ("completed", "failed", "stopped")
State = Literal["proposed", "running", "completed", "failed", "stopped"]


FIGURES = {"dice": "Dice", "absolute-error": "mean absolute error"}


@dataclass(frozen=True)
class Score:
    """An area under the ROC curve with its 95 % interval over patients; None where it is undefined or hidden.

    Of several classes the mean of theirs, each against all others. Of a survival study the concordance index, which is
    the same chance over pairs of patients, without an interval.
    Of patients who are not scored the mean of their figure: Dice coefficient, or absolute error.
    """

    auc: float | None
    low: float | None
    high: float | None
    name: str = "AUC"

    def __str__(self) -> str:
        """Return it as people read it."""
        if self.auc is None:
            return "-"
        return f"{self.auc:.3f}" if self.low is None else f"{self.auc:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class HospitalView:
    """One hospital: what it is doing and what it has given."""

    name: str
    answer: str
    reason: str | None
    online: bool
    activity: str
    fraction: float
    patients: int | None
    noised: bool
    epsilon: float | None
    bytes_up: int
    bytes_down: int
    score: Score


@dataclass(frozen=True)
class RoundSummary:
    """One round: its state, its score, and what each site was asked and answered."""

    number: int
    state: str
    seconds: float | None
    reason: str | None
    score: Score
    sites: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment."""

    title: str
    digest: str
    state: State
    reason: str | None
    rounds_planned: int
    final_version: int | None
    unit: str
    noise_epsilon: float | None
    epsilon_target: float | None
    delta: float
    hospitals: tuple[HospitalView, ...]
    rounds: tuple[RoundSummary, ...]

    @property
    def ended(self) -> bool:
        """Tell whether the study will not change any more."""
        return self.state in ENDED

    @property
    def score_name(self) -> str:
        """Return what versions are judged by."""
        return next((entry.score.name for entry in self.rounds if entry.score.auc is not None), "AUC")

    @property
    def final_round(self) -> RoundSummary | None:
        """Return the round that made the final version."""
        return next((r for r in self.rounds if r.number == self.final_version), None)


def snapshot_of(
    study: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]], sites: Sequence[Mapping[str, Any]]
) -> Snapshot:
    """Join the hub's three answers (`/v1/studies/{digest}`, its `/rounds`, and `/v1/sites`) into one value."""
    seen = {site["name"]: site for site in sites}
    summaries = tuple(_summary(entry) for entry in rounds)
    return Snapshot(
        title=study["title"] or study["name"],
        digest=study["digest"],
        state=study["state"],
        reason=study["reason"],
        rounds_planned=study["rounds_planned"],
        final_version=study["final_version"],
        unit=study["privacy"]["unit"],
        noise_epsilon=study["study"]["evaluation"]["noise_epsilon"],
        epsilon_target=study["privacy"]["epsilon_target"],
        delta=study["privacy"]["delta"],
        hospitals=tuple(
            _hospital(part, summaries, seen.get(part["site"], {}), study["study"]["privacy"].get("count_epsilon"))
            for part in study["sites"]
        ),
        rounds=summaries,
    )


def score_of(metrics: Mapping[str, Any] | None) -> Score:
    """Return the score of a MetricsView."""
    metrics = metrics or {}
    if metrics.get("concordance") is not None:
        return Score(metrics["concordance"], None, None, "concordance")
    if metrics.get("figure") is not None:
        name = FIGURES.get(metrics["figure"], metrics["figure"])
        return Score(metrics["mean"], metrics["mean_low"], metrics["mean_high"], name)
    name = "mean AUC" if metrics.get("classes") else "AUC"
    return Score(metrics.get("auc"), metrics.get("auc_low"), metrics.get("auc_high"), name)


def _summary(entry: Mapping[str, Any]) -> RoundSummary:
    return RoundSummary(
        number=entry["number"],
        state=entry["state"],
        seconds=entry["seconds"],
        reason=entry["reason"],
        score=score_of(entry["metrics"]),
        sites={site["site"]: site for site in entry["sites"]},
        warnings=tuple(entry.get("warnings", ())),
    )


def _hospital(
    part: Mapping[str, Any], rounds: Sequence[RoundSummary], seen: Mapping[str, Any], count_epsilon: float | None
) -> HospitalView:
    name = part["site"]
    own = [entry.sites[name] for entry in rounds if name in entry.sites]
    scores = [score for score in (score_of(entry["metrics"]) for entry in own) if score.auc is not None]
    epsilons = [entry["epsilon"] for entry in own if entry["epsilon"] is not None]
    return HospitalView(
        name=name,
        answer=part["state"],
        reason=part["reason"],
        online=bool(seen.get("online", False)),
        activity=seen.get("activity") or "waiting",
        fraction=float(seen.get("fraction") or 0.0),
        patients=part["training_patients"] if part["state"] == "approved" else None,
        noised=count_epsilon is not None,
        epsilon=max(epsilons, default=None),
        bytes_up=sum(entry["bytes_up"] or 0 for entry in own),
        bytes_down=sum(entry["bytes_down"] or 0 for entry in own),
        score=scores[-1] if scores else Score(None, None, None),
    )
