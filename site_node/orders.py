"""Work orders: the gate tells the worker what it may do. One JSON file for each, named by the task.

An order is written only after the gate has accepted the task, recorded its digest and found the study's planned maximum
in the privacy ledger. A worker does nothing without one, and stops when it is taken away.

Beside the orders lies an empty file for each study that has ended, `STUDY.ended`: the worker then deletes what it kept
of the study (`tasks/ended_studies.py`).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest, canonical_json, hex_of, parse_json
from protocol.errors import DigestError
from site_node.durable import write_durably
from site_node.errors import OrderError
from site_node.settings import SitePaths

ENDED_SUFFIX = ".ended"
TASK_ID_PATTERN = r"^[a-z0-9][a-z0-9.-]{0,199}$"


class WorkOrder(BaseModel):
    """What to do. For `cohort` the worker counts and freezes the study's cohort; the others answer a RoundTask.

    For `readiness` it looks at its machine and settings; `recount` says for which report.
    `class_weights` multiply losses in training, where the gate made them of figures that left noised (`label.balance`).
    `spent_digest` is of the list beside the order: the patients to leave out of the cohort (`cohort_members.py`).
    `cohort_digest` is of the cohort that was approved and charged: a task uses no other. None in orders of older gates.
    `boot` is the run of the gate's machine in which the order was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.work-order/1"] = Field(default="wardround.work-order/1", alias="schema")
    kind: Literal["cohort", "readiness", "initialise", "train", "evaluate"]
    task_id: str = Field(pattern=TASK_ID_PATTERN)
    task_digest: Digest
    study: dict[str, Any]
    study_digest: Digest
    round: int = Field(default=0, ge=0)
    base_blob: Digest | None = None
    control_blob: Digest | None = None
    noise_multiplier: float | None = None
    update_norm: float | None = None
    rate_factor: float | None = None
    class_weights: list[float] | None = None
    spent_digest: Digest | None = None
    cohort_digest: Digest | None = None
    recount: int = Field(default=0, ge=0)
    boot: str | None = None


def cohort_task_id(study_digest: str, recount: int = 0) -> str:
    """Return the id of the order that counts a study's cohort, for the first time or once more."""
    again = f"-{recount}" if recount else ""
    return f"cohort-{hex_of(study_digest)[:16]}{again}"


def readiness_task_id(study_digest: str, number: int) -> str:
    """Return the id of the order that asks for the machine's part of a study's readiness report."""
    return f"readiness-{hex_of(study_digest)[:16]}-{number}"


def order_path(paths: SitePaths, task_id: str) -> Path:
    """Return where the order of a task lies."""
    return paths.orders / f"{task_id}.json"


def ended_path(paths: SitePaths, study_digest: str) -> Path:
    """Return where the gate says that a study has ended."""
    return paths.orders / f"{hex_of(study_digest)}{ENDED_SUFFIX}"


def has_ended(paths: SitePaths, digits: str) -> bool:
    """Tell whether the gate says that the study with these digits has ended."""
    return (paths.orders / f"{digits}{ENDED_SUFFIX}").exists()


def write_order(paths: SitePaths, order: WorkOrder) -> None:
    """Write an order durably; the same order again changes nothing."""
    write_durably(order_path(paths, order.task_id), canonical_json(order.model_dump(mode="json", by_alias=True)))


def read_order(paths: SitePaths, task_id: str) -> WorkOrder | None:
    """Return the order of a task, or None if there is none (any more).

    Raises: OrderError if the file is something else.
    """
    try:
        data = order_path(paths, task_id).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return WorkOrder.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        raise OrderError(
            f"The work order {task_id} does not parse.", "Let the gate write it again: restart `wardround site gate`."
        ) from None
