"""A site's directory and its settings: read once at the entry point of a process and handed down.

SITE/site.yaml, policy.yaml      what the administrator writes
SITE/gate/                       signing key, approvals, privacy ledger, egress ledger       gate only
SITE/mark/                       how much has left: kept apart, so that no backup of gate/ takes it back    gate only
SITE/worker/                     index of images, leases, noise key                          worker only
SITE/agent/                      transport key, cursor, downloads                            agent only
SITE/ingest/                     journal and receipts of what was fetched from the PACS      ingest only
SITE/received/                   images that came over the network, ingest to worker
SITE/inbox/ verdicts/ orders/ handover/ outbox/ receipts/      how they speak to each other

Each of these folders has one writer and one reader; file rights keep the others out.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.study_parts import Name
from site_node.errors import SettingsError
from site_node.label_settings import Concept, LabelSettings, Names, names_in
from site_node.listener_settings import ListenerSettings
from site_node.pacs_settings import PacsSettings
from site_node.training_hours import TrainHours, TrainHoursEntry

MAX_SETTINGS_BYTES = 64 * 1024


@dataclass(frozen=True)
class SitePaths:
    """Where everything of a site lies.

    `staging` is set only inside a job's child process: what it hands over goes there first, and is published by the
    worker if it still holds the job's lease.
    """

    root: Path
    staging: Path | None = None

    @property
    def configuration(self) -> Path:
        """Return site.yaml."""
        return self.root / "site.yaml"

    @property
    def gate(self) -> Path:
        """Return the gate's own folder."""
        return self.root / "gate"

    @property
    def identity_key(self) -> Path:
        """Return the key that signs what leaves; the gate's only."""
        return self.gate / "identity.key"

    @property
    def hub_key(self) -> Path:
        """Return the hub's public key as the gate keeps it since enrolment."""
        return self.gate / "hub.pub"

    @property
    def gate_database(self) -> Path:
        """Return the database of approvals, decisions and both ledgers."""
        return self.gate / "gate.sqlite"

    @property
    def gate_payloads(self) -> Path:
        """Return the folder of payloads that were recorded and not yet receipted, named by digest."""
        return self.gate / "payloads"

    @property
    def mark(self) -> Path:
        """Return the folder of the high-water mark, which is not restored with the gate's own."""
        return self.root / "mark"

    @property
    def mark_of_egress(self) -> Path:
        """Return the mark itself."""
        return self.mark / "egress.json"

    @property
    def mark_of_charges(self) -> Path:
        """Return the folder of the privacy ledger's charges, as the hub was told them."""
        return self.mark / "charges"

    @property
    def agent(self) -> Path:
        """Return the agent's own folder."""
        return self.root / "agent"

    @property
    def transport_key(self) -> Path:
        """Return the key that opens the connection to the hub."""
        return self.agent / "transport.key"

    @property
    def agent_state(self) -> Path:
        """Return the agent's mailbox cursor and copy of the hub's public key."""
        return self.agent / "state.json"

    @property
    def partial(self) -> Path:
        """Return the folder of downloads that are not whole yet."""
        return self.agent / "partial"

    @property
    def inbox(self) -> Path:
        """Return the folder of mail from the hub, as received."""
        return self.root / "inbox"

    @property
    def blobs(self) -> Path:
        """Return the folder of verified weights, named by their digest's digits."""
        return self.inbox / "blobs"

    @property
    def verdicts(self) -> Path:
        """Return the folder in which the gate tells the agent accept, refuse or wait."""
        return self.root / "verdicts"

    @property
    def orders(self) -> Path:
        """Return the folder of work orders, gate to worker."""
        return self.root / "orders"

    @property
    def handover(self) -> Path:
        """Return the folder in which the worker hands over to the gate."""
        return self.root / "handover"

    @property
    def candidates(self) -> Path:
        """Return the folder of finished candidates, one folder for each task."""
        return (self.staging or self.handover) / "candidates"

    @property
    def cohorts(self) -> Path:
        """Return the folder of the cohorts' public figures."""
        return (self.staging or self.handover) / "cohorts"

    @property
    def progress(self) -> Path:
        """Return the folder of progress files."""
        return self.handover / "progress"

    @property
    def outbox(self) -> Path:
        """Return the folder of what leaves, gate to agent."""
        return self.root / "outbox"

    @property
    def receipts(self) -> Path:
        """Return the folder of the hub's receipts, agent to gate."""
        return self.root / "receipts"

    @property
    def worker(self) -> Path:
        """Return the worker's own folder."""
        return self.root / "worker"

    @property
    def index(self) -> Path:
        """Return the index of images."""
        return self.worker / "index.sqlite"

    @property
    def opt_outs(self) -> Path:
        """Return the record of patients who opted out here: plain patient ids."""
        return self.worker / "opt_outs.sqlite"

    @property
    def jobs(self) -> Path:
        """Return the database of leases."""
        return self.worker / "jobs.sqlite"

    @property
    def noise_key(self) -> Path:
        """Return the 32 secret bytes from which sampling and noise are drawn."""
        return self.worker / "noise.key"

    @property
    def cache(self) -> Path:
        """Return the folder of prepared images."""
        return self.worker / "cache"

    @property
    def cache_key(self) -> Path:
        """Return the key that prepared images are sealed with, where site.yaml names no other."""
        return self.worker / "cache.key"

    @property
    def frozen_cohorts(self) -> Path:
        """Return the folder of the studies' frozen cohorts: plain patient ids, and table values."""
        return self.worker / "cohorts"

    @property
    def counted_cohorts(self) -> Path:
        """Return where a count freezes its cohort: the frozen ones' folder, or staging until it is published."""
        return self.frozen_cohorts if self.staging is None else self.staging / "frozen"

    @property
    def local_state(self) -> Path:
        """Return the folder of what algorithms keep here between rounds."""
        return self.worker / "local_state"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of trainings that have not ended, as they stood after some step."""
        return self.worker / "checkpoints"

    @property
    def worker_receipts(self) -> Path:
        """Return the site-local account of each job: patients, images, seconds."""
        return self.worker / "receipts"

    @property
    def ingest(self) -> Path:
        """Return the own folder of the process that speaks to the PACS and to modalities."""
        return self.root / "ingest"

    @property
    def received(self) -> Path:
        """Return the folder of images that came over the network."""
        return self.root / "received"

    @property
    def redis(self) -> Path:
        """Return the folder of an embedded Redis."""
        return self.root / "redis"

    @property
    def logs(self) -> Path:
        """Return the folder of log files."""
        return self.root / "logs"

    def folders(self) -> tuple[Path, ...]:
        """Return every folder that a site has, parents first."""
        return (
            *(self.root, self.gate, self.gate_payloads, self.mark, self.mark_of_charges),
            *(self.agent, self.partial, self.inbox, self.blobs),
            *(self.verdicts, self.orders, self.handover, self.candidates, self.cohorts, self.progress),
            *(self.outbox, self.receipts, self.worker, self.cache, self.worker_receipts, self.redis, self.logs),
            *(self.ingest, self.received),
        )


@dataclass(frozen=True)
class SiteSettings:
    """What site.yaml says, with every path made absolute."""

    name: str
    hub_url: str
    images: tuple[Path, ...]
    labels: Path
    redis_url: str
    paths: SitePaths
    policy: Path
    threads: int = 2
    processes: int = 1
    processes_over: Literal["shared-memory", "gloo", "nccl"] = "shared-memory"
    table: Path | None = None
    pacs: PacsSettings | None = None
    listener: ListenerSettings | None = None
    keep_gpus_free: int = 0
    cache_gb: float | None = None
    cache_key: Path | None = None
    checkpoint_seconds: float = 300.0
    cpu_if_gpu_is_lost: bool = False
    train_hours: TrainHours | None = None
    merged_patients: Path | None = None
    excluded_patients: Path | None = None
    labelling: LabelSettings = field(default_factory=LabelSettings)


class _File(BaseModel):
    """The keys of site.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    hub: str = Field(pattern=r"^https?://", max_length=500)
    images: list[str] = []
    labels: str | None = None
    table: str | None = None
    redis: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^(redis|rediss|redis\+socket|unix)://")
    policy: str = "policy.yaml"
    threads: int | None = Field(default=None, ge=1, le=1024)
    processes: int = Field(default=1, ge=1, le=64)
    processes_over: Literal["shared-memory", "gloo", "nccl"] = "shared-memory"
    keep_gpus_free: int = Field(default=0, ge=0, le=64)
    cache_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cache_key: str | None = None
    checkpoint_minutes: float | None = Field(default=5.0, gt=0, allow_inf_nan=False)
    cpu_if_gpu_is_lost: bool = False
    train_hours: TrainHoursEntry | None = None
    pacs: PacsSettings | None = None
    listener: ListenerSettings | None = None
    merged_patients: str | None = None
    excluded_patients: str | None = None
    label_names: Names | str = {}
    reports: dict[str, Concept] = {}


def load_settings(folder: Path) -> SiteSettings:
    """Read a site's settings; paths in site.yaml are relative to its folder.

    Raises: SettingsError naming the faulty keys and the remedy.
    """
    paths = SitePaths(folder.resolve())
    text = read_yaml(
        paths.configuration, "Make the site first: wardround site init DIR --name NAME --hub URL --images DIR"
    )
    try:
        file = _File.model_validate(text)
    except ValidationError as error:
        raise SettingsError(
            f"{paths.configuration} is not usable: {faults(error)}.",
            "Correct these keys; `site init` writes an example.",
        ) from None
    if not file.images and file.table is None and file.pacs is None and file.listener is None:
        raise SettingsError(
            f"{paths.configuration} names neither images nor a table.",
            "Add images (folders of DICOM), table (a CSV), pacs (where to fetch images) or listener (who sends them).",
        )
    images = tuple((paths.root / entry).resolve() for entry in file.images)
    takes_images = bool(file.images) or file.pacs is not None or file.listener is not None
    if takes_images and paths.received.is_dir() and paths.received not in images:
        images = (*images, paths.received)
    return SiteSettings(
        name=file.name,
        hub_url=file.hub.rstrip("/"),
        images=images,
        labels=(paths.root / file.labels).resolve() if file.labels else (*images, paths.root)[0] / "labels.csv",
        redis_url=file.redis,
        paths=paths,
        policy=(paths.root / file.policy).resolve(),
        threads=file.threads or min(4, os.cpu_count() or 1),
        processes=file.processes,
        processes_over=file.processes_over,
        keep_gpus_free=file.keep_gpus_free,
        cache_gb=file.cache_gb,
        cache_key=(paths.root / file.cache_key).resolve() if file.cache_key else None,
        checkpoint_seconds=math.inf if file.checkpoint_minutes is None else 60.0 * file.checkpoint_minutes,
        cpu_if_gpu_is_lost=file.cpu_if_gpu_is_lost,
        train_hours=file.train_hours,
        table=(paths.root / file.table).resolve() if file.table else None,
        pacs=file.pacs.beside(paths.root) if file.pacs else None,
        listener=file.listener.beside(paths.root) if file.listener else None,
        merged_patients=(paths.root / file.merged_patients).resolve() if file.merged_patients else None,
        excluded_patients=(paths.root / file.excluded_patients).resolve() if file.excluded_patients else None,
        labelling=LabelSettings(names_in(file.label_names, paths.root), file.reports),
    )


def read_yaml(path: Path, remedy_if_missing: str) -> Mapping[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises: SettingsError if it is missing, too large or something else; the line of the fault is named.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing.", remedy_if_missing) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.", "Check its owner and rights.") from None
    if len(data) > MAX_SETTINGS_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_SETTINGS_BYTES} bytes.", "Is it the right file?")
    try:
        document = _parsed(data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path} is not YAML{where}.", "Mind the indentation and the colons.") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must hold keys and values.", "See the file that `site init` writes.")
    return dict(document)


@lru_cache(maxsize=8)
def _parsed(data: bytes) -> Any:
    # The gate reads its policy at every step, and it hardly ever changes: the same bytes are not parsed again.
    return yaml.safe_load(data)


def faults(error: ValidationError) -> str:
    """Say which keys are wrong and why, without repeating their values."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False)
    )
