"""What the fake hub shows of receipts: in round 3 one hospital trained on a third of the patients that it told."""

from typing import Any

from protocol.round_receipts import used_of

SHORT_SITE, SHORT_ROUND = "st-anna", 3
FRACTION = (
    "st-anna trained this round on a fraction of the patients that it told: at most 43 of 67, below 90%, by the noised "
    "number of its receipt. Its administrator finds the reasons with `wardround site receipts`."
)


def warnings(study: dict[str, Any], number: int) -> list[str]:
    return [FRACTION] if number == SHORT_ROUND and _epsilon(study) is not None else []


def receipt(study: dict[str, Any], name: str, number: int, told: int) -> dict[str, Any]:
    view: dict[str, Any] = {"told": told, "steps": 12, "software": "1.0.0", "patients": None, "short": False}
    epsilon = _epsilon(study)
    if epsilon is None:
        return view
    exact = 20 if (name, number) == (SHORT_SITE, SHORT_ROUND) else told - 1
    used = used_of([exact], told=told, epsilon=epsilon)
    numbers = {"patients": used.patients, "low": used.low, "high": used.high, "mean": used.mean}
    means = {"mean_low": used.mean_low, "mean_high": used.mean_high, "mean_rounds": used.rounds}
    return {**view, **numbers, **means, "short": used.is_short}


def _epsilon(study: dict[str, Any]) -> float | None:
    epsilon: float | None = study["study"]["privacy"].get("receipt_epsilon")
    return epsilon
