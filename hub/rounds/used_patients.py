"""Of how many patients each update was made, as its receipt says: for people, and for the version's lineage. Pure.

The number is noised; what the noise allows is `protocol/round_receipts.py`. A *short* round, in which a hospital used
less than nine tenths of the number that it told, is told wherever rounds are: it is no fault by itself (patients may
opt out), but who reads the version must know. Whoever has no budget left since before the start is told by no number:
`protocol/round_receipts.py`. The reasons are in the hospital's own receipts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hub.rounds.metric_views import shown_trainees
from hub.storage.receipt_stores import KeptReceipt
from hub.storage.tables import UpdateRow
from protocol.round_receipts import LEAST_SHARE, RoundReceipt, UsedPatients, used_of
from protocol.study import StudySpec

View = dict[str, Any]
SHORT = (
    "{site} trained this round on a fraction of the patients that it told: {share}, by the noised number of its "
    "receipt. Its administrator finds the reasons with `wardround site receipts`."
)


def used_by_task(spec: StudySpec, receipts: Iterable[KeptReceipt]) -> dict[str, UsedPatients]:
    """Return how many patients each task used, by its own receipt and those of the site's rounds before it.

    `receipts` are all of the study, by round. Tasks without a number have none.
    """
    epsilon, found = spec.privacy.receipt_epsilon, dict[str, UsedPatients]()
    if epsilon is None:
        return found
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for kept in receipts:
        receipt = RoundReceipt.model_validate_json(kept.receipt)
        if receipt.patients is None:
            continue
        own, told = numbers[kept.site], receipt.told
        own.append(receipt.patients)
        found[kept.task_id] = used_of(own, told=told, epsilon=epsilon, count_epsilon=spec.privacy.count_epsilon)
    return found


def receipt_of(update: UpdateRow | None) -> RoundReceipt | None:
    """Return the receipt that came with an update, or None."""
    return None if update is None or update.receipt is None else RoundReceipt.model_validate_json(update.receipt)


def receipt_view(update: UpdateRow | None, used: Mapping[str, UsedPatients]) -> View | None:
    """Return what people see of an update's receipt; None without one. `patients` null: the study asks for no number.

    `short` is true where the noise cannot explain that less than nine tenths of the told patients were used.
    """
    receipt = receipt_of(update)
    if update is None or receipt is None:
        return None
    view: View = {"told": shown_trainees(receipt.told), "steps": receipt.steps, "software": receipt.software}
    own = used.get(update.task_id)
    return {**view, **(_NO_NUMBER if own is None else _numbers(own))}


_NO_NUMBER: View = {
    **dict.fromkeys(("patients", "low", "high", "mean", "mean_low", "mean_high", "mean_rounds")),
    "short": False,
}


def _numbers(used: UsedPatients) -> View:
    return {
        "patients": used.patients,
        "low": round(used.low),
        "high": round(used.high),
        "mean": round(used.mean, 1),
        "mean_low": round(used.mean_low, 1),
        "mean_high": round(used.mean_high, 1),
        "mean_rounds": used.rounds,
        "short": used.is_short,
    }


def warnings_of(sites: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each hospital of a round (as the API shows them) whose update was made of a fraction."""
    return [
        SHORT.format(site=site["site"], share=_share(site["receipt"]))
        for site in sites
        if site["receipt"] is not None and site["receipt"]["short"]
    ]


def _share(receipt: Mapping[str, Any]) -> str:
    alone, together = receipt["high"], receipt["mean_high"]
    over = "" if alone <= together else f" in its last {receipt['mean_rounds']} rounds"
    most = round(min(alone, together))
    told = "few" if receipt["told"] is None else receipt["told"]
    return f"at most {most} of {told}{over}, below {LEAST_SHARE:.0%}"


def used_in_lineage(update: UpdateRow, used: Mapping[str, UsedPatients]) -> View | None:
    """Return what a version's lineage says of an update's receipt: the noised number, and whether it was short.

    The told number is left out: where it is exact, pages hide a small one, and a lineage is exported as it is.
    """
    receipt = receipt_of(update)
    if receipt is None:
        return None
    own = used.get(update.task_id)
    return {**receipt.model_dump(mode="json", exclude={"told"}), "short": None if own is None else own.is_short}
