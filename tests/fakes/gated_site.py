"""A hospital's directory with its gate, and the hub's side of the mail: what the gate sees and nothing else."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from protocol.digest import digest_of_bytes, hex_of
from protocol.manifest import manifest_of
from protocol.message import Message
from protocol.messages import (
    Approval,
    LedgerCharge,
    LedgerHead,
    ModelReference,
    Progress,
    Receipt,
    RoundTask,
    StudyProposal,
    TaskKind,
    parse_message,
)
from protocol.metrics import ScoreHistograms
from protocol.privacy_accounting import noise_multiplier_of
from protocol.signing import SigningKey, open_envelope, sign
from protocol.study import StudySpec, parse_study
from protocol.tensors import encode_weights
from site_node.budget_report import budget_overview
from site_node.candidate import Candidate, CohortFigures, write_candidate, write_cohort_figures
from site_node.cohort_members import CohortMembers, SpentPatients, read_spent, write_members
from site_node.durable import write_durably
from site_node.enrolment import create_site
from site_node.governance.approval import Decision, DecisionWord, record_decision
from site_node.governance.context import fresh_nonce, nothing
from site_node.governance.gate import Gate
from site_node.governance.policy import load_policy
from site_node.governance.records import StudyRecord, open_records, study_record
from site_node.orders import cohort_task_id, read_order
from site_node.settings import SitePaths, SiteSettings
from tests.fakes.power_cuts import PowerCutError, power_cut

PERMISSIVE_POLICY = (
    "approval: automatic\nnetworks: any\nmodalities: any\nminimum_patients: 1\nminimum_held_out_patients: 1\n"
    "hold_out_trained: always\n"
)
DAY = 1_900_000_000.0


def study_of(**changes: Any) -> StudySpec:
    """Return a small private study; keyword arguments replace its parts."""
    data: dict[str, Any] = {
        "name": "tiny",
        "cohort": {"modality": ["DX"], "minimum_patients": 2},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "training": {"local_steps": 2, "sampling_rate": 0.2},
        "rounds": 3,
        "participants": {"minimum_sites": 1, "training_patients": 100},
        "privacy": {"epsilon": 4.0, "delta": 1e-4},
    }
    return parse_study({**data, **changes})


HELD_OUT = 1_000_000


def patients_of(first: int, number: int) -> list[str]:
    """Return pseudonyms of so many patients."""
    return [f"{who:032x}" for who in range(first, first + number)]


def weights(value: float = 0.5, size: int = 3) -> dict[str, Any]:
    return {"bias": np.full(size, value, np.float32), "kernel": np.full((2, size), -value, np.float32)}


BASE = encode_weights(weights(0.0))
BASE_MANIFEST = manifest_of(weights(0.0))


@dataclass(frozen=True)
class Backup:
    """What was copied of a site: the gate's database, and the files of the high-water mark."""

    database: bytes
    mark: dict[Path, bytes]


@dataclass
class GatedSite:
    """Drives one gate by the files that its neighbours would write and read."""

    settings: SiteSettings
    hub: SigningKey
    now: float = DAY
    number: int = 0
    checkpoint: Callable[[str], None] = nothing
    nonce: Callable[[], str] = fresh_nonce
    seen: dict[int, bytes] = field(default_factory=dict)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @classmethod
    def make(cls, folder: Path, policy: str = PERMISSIVE_POLICY) -> "GatedSite":
        images = folder / "images"
        images.mkdir(parents=True)
        settings = create_site(folder / "site", "st-anna", "http://hub.test", [images], policy=policy)
        hub = SigningKey.generate()
        settings.paths.hub_key.write_text(hub.public.text)
        return cls(settings, hub)

    @property
    def paths(self) -> SitePaths:
        return self.settings.paths

    def start(self) -> None:
        """Start the gate, or start it again after it was killed."""
        self.gate = Gate(self.settings, lambda: self.now, lambda step: self.checkpoint(step), lambda: self.nonce())

    def sweep(self) -> None:
        """Sweep until nothing is left to do."""
        for _ in range(20):
            if self.gate.sweep() == 0:
                break
        else:
            raise AssertionError("the gate never rests")
        self.look()

    def lose_power_at(self, step: str) -> None:
        """Sweep until the power fails at a step, and start the gate again."""
        self.checkpoint = power_cut(step)
        with pytest.raises(PowerCutError):
            self.sweep()
        self.checkpoint = nothing
        self.start()

    def budget(self) -> dict[str, Any]:
        """Return what `wardround site budget` shows."""
        return budget_overview(open_records(self.paths), load_policy(self.settings.policy))

    def post(self, message: Message, key: SigningKey | None = None) -> None:
        """Put a message of the hub into the inbox, as the agent does."""
        self.number += 1
        envelope = sign(message.canonical_bytes(), key or self.hub)
        write_durably(self.paths.inbox / f"{self.number:016d}.dsse.json", envelope)

    def propose(self, study: StudySpec, noise: float | None = None, head: LedgerHead | None = None) -> None:
        multiplier = noise_multiplier_of(study) if noise is None else noise
        self.post(
            StudyProposal(
                study_digest=study.digest,
                study=study.model_dump(mode="json", by_alias=True),
                noise_multiplier=multiplier,
                ledger_head=head,
            )
        )

    def count_cohort(
        self,
        study: StudySpec,
        training: int = 40,
        held_out: int = 20,
        recount: int = 0,
        first: int = 0,
        held_out_from: int | None = None,
        validation: Sequence[str] = (),
        withheld: Sequence[str] = (),
        merged: Sequence[Sequence[str]] = (),
        **more: Any,
    ) -> CohortMembers:
        """Count a cohort as the worker does: patients `first`, `first` + 1 ..., but those whom the order leaves out."""
        order = read_order(self.paths, cohort_task_id(study.digest, recount))
        spent = SpentPatients() if order is None else read_spent(self.paths, order.task_id, order.spent_digest)
        judged_from = HELD_OUT + first if held_out_from is None else held_out_from
        trainees, judged = patients_of(first, training), patients_of(judged_from, held_out)
        members = CohortMembers(
            study_digest=study.digest,
            training=[who for who in trainees if not spent.excludes(who, "train")],
            held_out=[who for who in judged if not spent.excludes(who, "test")],
            validation=list(validation),
            withheld=list(withheld),
            spent_training=[who for who in trainees if spent.excludes(who, "train")],
            spent_held_out=[who for who in judged if spent.excludes(who, "test")],
            merged=[list(own) for own in merged],
        )
        figures = CohortFigures(
            study_digest=study.digest,
            training_patients=training if members.training else 0,
            training_images=2 * len(members.training),
            held_out_patients=held_out if members.held_out else 0,
            manifest_digest=digest_of_bytes(b"cohort"),
            version_zero_digest=digest_of_bytes(BASE),
            members_digest=write_members(self.paths, members),
            recount=recount,
        )
        write_cohort_figures(self.paths, figures.model_copy(update=more))
        return members

    def count_these(self, study: StudySpec, training: Sequence[str], held_out: Sequence[str]) -> None:
        """Count a cohort of these pseudonyms."""
        members = CohortMembers(study_digest=study.digest, training=list(training), held_out=list(held_out))
        figures = CohortFigures(
            study_digest=study.digest,
            training_patients=len(training),
            training_images=2 * len(training),
            held_out_patients=len(held_out),
            manifest_digest=digest_of_bytes(b"cohort"),
            version_zero_digest=digest_of_bytes(BASE),
            members_digest=write_members(self.paths, members),
        )
        write_cohort_figures(self.paths, figures)

    def join(self, study: StudySpec, head: LedgerHead | None = None) -> None:
        """Take a study from proposal to approval."""
        self.propose(study, head=head)
        self.sweep()
        self.count_cohort(study)
        self.sweep()

    def task(self, study: StudySpec, number: int = 1, kind: TaskKind = TaskKind.TRAIN, **changes: Any) -> RoundTask:
        """Return a task of the hub; its base version lies in the inbox already."""
        (self.paths.blobs / hex_of(digest_of_bytes(BASE))).write_bytes(BASE)
        base = ModelReference(
            number=number if kind is TaskKind.EVALUATE else max(number - 1, 0),
            weights_digest=digest_of_bytes(BASE),
            weights_bytes=len(BASE),
            manifest_digest=BASE_MANIFEST.digest,
        )
        task = RoundTask(
            task_id=f"tiny-{number}-{kind}",
            kind=kind,
            study_digest=study.digest,
            site="st-anna",
            round=number,
            sequence=max(number, 1),
            base=None if kind is TaskKind.INITIALISE else base,
            noise_multiplier=noise_multiplier_of(study) if kind is TaskKind.TRAIN else None,
            deadline_seconds=60.0,
        )
        return task.model_copy(update=changes)

    def give(self, task: RoundTask) -> RoundTask:
        self.post(task)
        self.sweep()
        return task

    def hand_over(self, task: RoundTask, payload: bytes | None = None, **changes: Any) -> None:
        """Hand over a candidate of training, as the worker does."""
        plain = encode_weights(weights()) if payload is None else payload
        data = zstandard.compress(plain)
        candidate = Candidate(
            task_id=task.task_id,
            task_digest=digest_of_bytes(task.canonical_bytes()),
            kind="update",
            payload_digest=digest_of_bytes(data),
            payload_bytes=len(data),
            manifest_digest=BASE_MANIFEST.digest,
            steps=["weights" if task.kind is TaskKind.INITIALISE else "difference", "zstandard"],
        )
        write_candidate(self.paths, candidate.model_copy(update=changes), data)

    def hand_over_scores(self, task: RoundTask, patients: int = 10) -> None:
        scores, labels = np.linspace(0.1, 0.9, patients), np.arange(patients) % 2
        histograms = ScoreHistograms.from_scores(scores, labels.astype(np.int64))
        candidate = Candidate(
            task_id=task.task_id,
            task_digest=digest_of_bytes(task.canonical_bytes()),
            kind="evaluation",
            histograms={"validation": histograms},
        )
        write_candidate(self.paths, candidate)

    def back_up(self) -> Backup:
        """Return a copy of the gate's database and of the high-water mark."""
        copy = self.paths.root / "backup.sqlite"
        with closing(sqlite3.connect(copy)) as target, closing(sqlite3.connect(self.paths.gate_database)) as source:
            source.backup(target)
        data = copy.read_bytes()
        copy.unlink()
        return Backup(data, {path: path.read_bytes() for path in self.paths.mark.rglob("*.json")})

    def restore(self, backup: Backup, *, with_mark: bool = True) -> None:
        """Put an old copy back, as after a broken disk: of the whole site, or without the mark of the gate alone.

        Letters in between are gone too.
        """
        self.gate.close()
        for path in self.paths.gate.glob("gate.sqlite*"):
            path.unlink()
        self.paths.gate_database.write_bytes(backup.database)
        if with_mark:
            for path in self.paths.mark.rglob("*.json"):
                path.unlink()
            for path, data in backup.mark.items():
                path.write_bytes(data)
        for folder in (self.paths.inbox, self.paths.outbox, self.paths.receipts, self.paths.cohorts):
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
        self.seen.clear()
        self.start()

    def look(self) -> None:
        """Note what lies in the outbox; a number never changes its bytes."""
        for path in sorted(self.paths.outbox.glob("*.dsse.json")):
            data, number = path.read_bytes(), int(path.name.split(".")[0])
            assert self.seen.setdefault(number, data) == data, "an envelope was replaced by another"

    def everything_sent(self) -> list[Message]:
        """Return all messages that ever left, in their order."""
        self.look()
        key = SigningKey.load_or_create(self.paths.identity_key).public
        return [parse_message(open_envelope(self.seen[number], key)) for number in sorted(self.seen)]

    def sent(self) -> list[Message]:
        """Return all messages that ever left, heartbeats and the ledger's charges aside."""
        return [message for message in self.everything_sent() if not isinstance(message, Progress | LedgerCharge)]

    def answers(self, study: StudySpec) -> list[Approval]:
        """Return what the hub was told of a decision on a study."""
        return [
            message for message in self.sent() if isinstance(message, Approval) and message.study_digest == study.digest
        ]

    def record(self, study: StudySpec) -> StudyRecord:
        """Return how a study stands at the gate."""
        with closing(open_records(self.paths)) as database:
            found = study_record(database, study.digest)
        assert found is not None
        return found

    def decide(self, study: StudySpec, word: DecisionWord) -> None:
        """Decide on a study as a person does, and let the gate act on it."""
        key = SigningKey.load_or_create(self.paths.identity_key)
        with closing(open_records(self.paths)) as database:
            record_decision(database, Decision(study.digest, word, "Dr Grey", self.now, None), key)
        self.sweep()

    def charges(self) -> list[LedgerCharge]:
        """Return what the hub was told of the privacy ledger."""
        return [message for message in self.everything_sent() if isinstance(message, LedgerCharge)]

    def receive_all(self, *, accepted: bool = True, key: SigningKey | None = None) -> None:
        """Answer everything in the outbox with a receipt, as hub and agent do."""
        self.look()
        own = SigningKey.load_or_create(self.paths.identity_key).public
        for path in sorted(self.paths.outbox.glob("*.dsse.json")):
            receipt = Receipt(
                message_digest=digest_of_bytes(open_envelope(path.read_bytes(), own)),
                accepted=accepted,
                reason="" if accepted else "late",
                received_at="2030-01-01T00:00:00Z",
            )
            envelope = sign(receipt.canonical_bytes(), key or self.hub)
            write_durably(self.paths.receipts / path.name, envelope)

    def verdict(self, task_id: str) -> dict[str, Any] | None:
        import json

        path = self.paths.verdicts / f"{task_id}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def with_policy(self, text: str) -> None:
        self.settings.policy.write_text(text)
