"""What the worker finds of its machine and settings for a study's readiness report, handed over to the gate.

    handover/cohorts/<study hex>.machine      in words of `protocol/readiness.py` alone; nothing depends on a patient

The gate checks the form, adds what only it knows (policy, accounting, hours), and decides whether it leaves.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.digest import Digest, canonical_json, hex_of, parse_json
from protocol.errors import DigestError
from protocol.message import Count
from protocol.readiness import DecodersState, DeviceState, LabelsState, Minutes, NamesState, ReportNumber, Sufficient
from site_node.durable import read_up_to, write_durably
from site_node.errors import GateError
from site_node.settings import SitePaths

MACHINE_SUFFIX = ".machine"
MAX_BYTES = 4096


class MachineFigures(BaseModel):
    """The worker's part of a readiness report, in answer to the order of this number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_digest: Digest
    number: ReportNumber
    labels: LabelsState = "not-looked-for"
    class_names: NamesState = "not-needed"
    decoders: DecodersState = "unseen"
    device: DeviceState = "unseen"
    disk: Sufficient = "unseen"
    memory: Sufficient = "unseen"
    minutes_a_round: Minutes = "not-measured"
    stand_ins: Count = 0


def machine_path(paths: SitePaths, study_digest: str) -> Path:
    """Return where the figures of a study lie."""
    return paths.cohorts / f"{hex_of(study_digest)}{MACHINE_SUFFIX}"


def write_machine_figures(paths: SitePaths, figures: MachineFigures) -> None:
    """Hand the figures over, whole."""
    paths.cohorts.mkdir(parents=True, exist_ok=True)
    write_durably(machine_path(paths, figures.study_digest), canonical_json(figures.model_dump(mode="json")))


def read_machine_figures(paths: SitePaths, study_digest: str) -> MachineFigures | None:
    """Return the figures of a study, or None if there are none yet.

    Raises: GateError if the file is something else, or of another study.
    """
    data = read_up_to(machine_path(paths, study_digest), MAX_BYTES)
    if data is None:
        return None
    try:
        figures = MachineFigures.model_validate(parse_json(data[:MAX_BYTES]))
    except (DigestError, ValidationError):
        raise GateError("A machine's figures do not parse.", "Are worker and gate of the same version?") from None
    if figures.study_digest != study_digest:
        raise GateError("A machine's figures name another study.", "Restart the worker.")
    return figures
