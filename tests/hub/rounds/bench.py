"""Hospitals that answer a hub's tasks with numbers that tests choose; everything between is the hub's own code."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard

from hub.rounds import messages, uploads
from hub.rounds.committing import close_round
from hub.rounds.delivery import mail_of, mark_delivered
from hub.rounds.uploads import UploadState
from hub.rounds.views import round_views
from hub.services import Services
from hub.storage import audit_stores, round_stores, stores
from hub.studies import coordinator as studies
from hub.studies.views import study_view
from protocol.digest import digest_of, digest_of_bytes
from protocol.manifest import manifest_of
from protocol.message import Message
from protocol.messages import (
    EvaluationReport,
    PrivacySpent,
    Reason,
    Receipt,
    RoundTask,
    TaskKind,
    TaskRefusal,
    UpdateNotice,
    expect,
    parse_message,
)
from protocol.metrics import ScoreHistograms
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from protocol.signing import open_envelope
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, decode_weights, encode_weights
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Queue, specification

EVENTS = "sha256:" + "e" * 64
ZERO: Weights = {"bias": np.zeros(2, np.float32), "kernel": np.zeros((1, 3), np.float32)}


def weights_of(*values: float) -> Weights:
    """Return weights of the toy model (two and three values)."""
    return {"bias": np.array(values[:2], np.float32), "kernel": np.array([values[2:]], np.float32)}


def spent_after(study: StudySpec, tasks: int) -> PrivacySpent:
    """Return the account of a hospital that answered so many training tasks."""
    noise = noise_multiplier_of(study)
    assert noise is not None
    events = training_events(study, noise, tasks)
    delta = study.privacy.delta
    digest = digest_of([event.model_dump(mode="json", by_alias=True) for event in events])
    return PrivacySpent(epsilon=epsilon_of(events, delta), delta=delta, events_digest=digest)


def filled(value: float) -> Weights:
    return weights_of(*[value] * 5)


def study_of(**changes: Any) -> StudySpec:
    """Return a legal study of two rounds without compression; dotted changes are whole parts."""
    return parse_study(specification(**{"transport": {"upload": []}, **changes}))


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@dataclass
class Bench:
    """A hub's services and its hospitals."""

    services: Services
    hospitals: list[Hospital]
    queue: Queue
    study: StudySpec = field(default_factory=study_of)

    def start(self, study: StudySpec, patients: tuple[int, ...] = (10, 30, 60), **approval: Any) -> None:
        """Propose a study and approve it everywhere."""
        self.study = study
        studies.propose(self.services, study, [], "researcher")
        for hospital, count in zip(self.hospitals, patients, strict=True):
            if study.privacy.epsilon is not None and count:
                self.say(hospital, hospital.charge(study))
            self.say(hospital, hospital.approval(study.digest, patients=count, **approval))

    def begin(self, study: StudySpec, patients: tuple[int, ...] = (10, 30, 60), initial: Weights = ZERO) -> None:
        """Start a study, post version 0 and judge it."""
        self.start(study, patients)
        (task,) = self.tasks(TaskKind.INITIALISE)
        self.update(task, initial)
        self.report_all()

    def say(self, hospital: Hospital, message: Message) -> Receipt:
        envelope = messages.receive(self.services, hospital.name, hospital.signed(message))
        return expect(open_envelope(envelope, self.services.key.public), Receipt)

    def tasks(self, kind: TaskKind) -> list[RoundTask]:
        """Return the tasks of a kind that are waiting, by site."""
        with self.services.reading() as session:
            waiting = {
                row.task_id
                for hospital in self.hospitals
                for row in round_stores.tasks_of_site(session, hospital.name, ["open", "delivered"])
            }
        return [t for h in self.hospitals for t in self.mail(h, RoundTask) if t.task_id in waiting and t.kind is kind]

    def mail(self, hospital: Hospital, kind: type[Any]) -> list[Any]:
        items = mail_of(self.services, hospital.name, 0)
        mark_delivered(self.services, [hospital.name])
        payloads = [open_envelope(item["envelope"].encode(), self.services.key.public) for item in items]
        return [message for message in map(parse_message, payloads) if isinstance(message, kind)]

    def hospital(self, name: str) -> Hospital:
        return next(h for h in self.hospitals if h.name == name)

    def notice(self, task: RoundTask, payload: bytes, weights: Weights = ZERO, **changes: Any) -> UpdateNotice:
        """Return an honest notice of a payload, but for the changes."""
        private = self.study.privacy.epsilon is not None and task.kind is TaskKind.TRAIN
        steps = ["weights" if task.kind is TaskKind.INITIALISE else "difference"]
        fields: dict[str, Any] = {
            "site": task.site,
            "task_id": task.task_id,
            "task_digest": task.digest,
            "study_digest": task.study_digest,
            "round": task.round,
            "base_digest": task.base.weights_digest if task.base else None,
            "payload_digest": digest_of_bytes(payload),
            "payload_bytes": len(payload),
            "manifest_digest": manifest_of(weights).digest,
            "steps": steps if not self.study.transport.upload else [*steps, "zstandard"],
            "weight": 1.0,
            "privacy": spent_after(self.study, task.round) if private else None,
        }
        return UpdateNotice(**{**fields, **changes})

    def packed(self, weights: Weights) -> bytes:
        plain = encode_weights(weights)
        return zstandard.compress(plain) if self.study.transport.upload else plain

    def update(self, task: RoundTask, weights: Weights) -> UploadState:
        """Answer a task with an update, in one piece."""
        payload = self.packed(weights)
        return self.send(task, self.notice(task, payload, weights), payload)

    def send(self, task: RoundTask, notice: UpdateNotice, payload: bytes, piece: int = 1 << 20) -> UploadState:
        """Announce and send a payload in pieces, until it is settled or all is sent."""
        state = self.announce(task, notice)
        while state.receipt is None and state.offset < len(payload):
            state = self.send_piece(task, state, payload, piece)
        return state

    def announce(self, task: RoundTask, notice: UpdateNotice) -> UploadState:
        return uploads.announce(self.services, task.site, self.hospital(task.site).signed(notice))

    def send_piece(self, task: RoundTask, state: UploadState, payload: bytes, piece: int) -> UploadState:
        transfer = uploads.open_transfer(self.services, task.site, state.upload_id)
        assert transfer is not None
        data = payload[state.offset : state.offset + piece]
        uploads.append(self.services, state.upload_id, transfer, state.offset, data)
        return uploads.look_up(self.services, task.site, state.upload_id)

    def receipt(self, state: UploadState) -> Receipt:
        assert state.receipt is not None
        return expect(open_envelope(state.receipt, self.services.key.public), Receipt)

    def train_all(self, *values: float) -> None:
        """Answer each waiting training task with an update that is the same everywhere."""
        for task, value in zip(self.tasks(TaskKind.TRAIN), values, strict=True):
            self.update(task, filled(value))

    def refuse(self, task: RoundTask, reason: Reason = Reason.PAUSED) -> Receipt:
        hospital = self.hospital(task.site)
        refusal = TaskRefusal(site=task.site, task_id=task.task_id, study_digest=task.study_digest, reason=reason)
        return self.say(hospital, refusal)

    def report(self, task: RoundTask, positive: list[float], negative: list[float], **changes: Any) -> Receipt:
        """Answer an evaluation with un-noised histograms of validation patients."""
        scores = np.array([*positive, *negative], np.float64)
        labels = np.array([1] * len(positive) + [0] * len(negative), np.int64)
        fields: dict[str, Any] = {
            "site": task.site,
            "task_id": task.task_id,
            "task_digest": task.digest,
            "study_digest": task.study_digest,
            "version": task.base,
            "histograms": {"validation": ScoreHistograms.from_scores(scores, labels)},
            "noise_epsilon": None,
        }
        return self.say(self.hospital(task.site), EvaluationReport(**{**fields, **changes}))

    def report_all(self) -> None:
        for task in self.tasks(TaskKind.EVALUATE):
            self.report(task, [0.9, 0.8, 0.4], [0.1, 0.2, 0.6])

    def close(self) -> bool:
        """Do the close that was asked for last."""
        name, arguments = self.queue.items[-1]
        assert name == "aggregate"
        return close_round(self.services, **arguments)

    def round(self, number: int = -1) -> dict[str, Any]:
        return self.rounds()[number]

    def rounds(self) -> list[dict[str, Any]]:
        with self.services.reading() as session:
            return round_views(session, self.study.digest, self.services.clock())

    def view(self) -> dict[str, Any]:
        with self.services.reading() as session:
            return study_view(session, stores.study(session, self.study.digest))

    def weights(self, version: int) -> Weights:
        with self.services.reading() as session:
            digest = stores.version(session, self.study.digest, version).weights_digest
        return decode_weights(self.services.blobs.path(digest))


def actions(bench: Bench) -> list[str]:
    """Return the actions in the audit log, in order."""
    with bench.services.reading() as session:
        entries = audit_stores.entries(session, 0, 1000)
    return [str(entry.entry.split(b'"action":"')[1].split(b'"')[0].decode()) for entry in entries]
