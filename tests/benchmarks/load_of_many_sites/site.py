"""A light hospital: real keys, real messages, real transfers; no gate, no patients, and a pause instead of training."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from protocol.digest import digest_of_bytes, hex_of
from protocol.manifest import manifest_of
from protocol.message import Message
from protocol.messages import (
    EvaluationReport,
    RoundTask,
    StudyClosed,
    StudyProposal,
    TaskKind,
    UpdateNotice,
    parse_message,
)
from protocol.metrics import ScoreHistograms
from protocol.signing import read_unverified
from protocol.tensors import Weights, encode_weights
from site_node.agent.polling import wait_seconds
from tests.benchmarks.load_of_many_sites.wire import Connection
from tests.fakes.hospital import Hospital

SIGN_IN_SECONDS = 20.0
"""Hospitals' agents start within this time, and so wait at their mailboxes at different moments."""
LAG_EVERY_SECONDS = 0.05
LESSER_WORK = 0.5
"""Of a training's time: at most so long take an approval (the cohort is counted) and an evaluation."""
SCALE = 1e-3
BINS = 256


@dataclass
class Timings:
    """What the driver saw, in seconds; `arrivals` by kind of mail and round, as times of arrival.

    `empty_polls` are (when it ended, the time beside the wait).
    """

    empty_polls: list[tuple[float, float]] = field(default_factory=list)
    own_lags: list[float] = field(default_factory=list)
    requests: dict[str, list[float]] = field(default_factory=dict)
    arrivals: dict[str, list[float]] = field(default_factory=dict)

    def polls_by_phase(self) -> dict[str, list[float]]:
        """Return the empty polls' times by what the sites were doing: by the newest kind of mail."""
        starts = sorted((min(times), kind) for kind, times in self.arrivals.items())
        found: dict[str, list[float]] = {}
        for moment, seconds in self.empty_polls:
            phase = next((kind for start, kind in reversed(starts) if start <= moment), "before the study")
            found.setdefault(phase, []).append(seconds)
        return found

    async def watch_own_lag(self) -> None:
        """Note again and again by how much this process is late itself: what it times cannot be more exact."""
        while True:
            due = time.perf_counter() + LAG_EVERY_SECONDS
            await asyncio.sleep(LAG_EVERY_SECONDS)
            self.own_lags.append(time.perf_counter() - due)


@dataclass
class LightSite:
    """One site of the load; `number` makes its update: every value is number x SCALE, so that the mean is known."""

    number: int
    hospital: Hospital
    url: str
    params: int
    training_seconds: float
    timings: Timings
    cursor: int = 0
    closed: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        # Two, as an agent has: the mail waits on one while the other carries.
        self.mail, self.carrier = Connection(host, port), Connection(host, port)
        self.chance = random.Random(self.number)  # noqa: S311 - a pause's length is no secret

    async def run(self) -> None:
        """Take part until the study is closed."""
        await self._sign_in()
        async with asyncio.TaskGroup() as answers:
            while not self.closed:
                self.waits = True
                await self._poll(answers)
        self.mail.close()
        self.carrier.close()

    async def _sign_in(self) -> None:
        body = json.dumps({"assertion": self.hospital.assertion()}).encode()
        await asyncio.sleep(self.chance.uniform(0, SIGN_IN_SECONDS))
        token = (await self._timed("token", self.carrier, "POST", "/v1/token/site", body)).json()["access_token"]
        self.mail.token = self.carrier.token = token

    async def _poll(self, answers: asyncio.TaskGroup) -> None:
        wait, began = round(wait_seconds(self.chance), 3), time.perf_counter()
        answer = await self.mail.ask("GET", f"/v1/mailbox?after={self.cursor}&wait={wait}")
        items = answer.json()["items"]
        if not items:
            now = time.perf_counter()
            self.timings.empty_polls.append((now, now - began - wait))
        for item in items:
            self.cursor = item["number"]
            message = parse_message(read_unverified(item["envelope"].encode()))
            self._note(message)
            self.closed = self.closed or isinstance(message, StudyClosed)
            answers.create_task(self._answer(message))

    def _note(self, message: Message) -> None:
        kind = type(message).__name__
        if isinstance(message, RoundTask):
            kind = f"{message.kind.value} {message.round}"
        self.timings.arrivals.setdefault(kind, []).append(time.perf_counter())

    async def _answer(self, message: Message) -> None:
        if isinstance(message, StudyProposal):
            await self._work(LESSER_WORK)
            await self._post(self.hospital.approval(message.study_digest, patients=40))
        elif isinstance(message, RoundTask):
            await self._do(message)

    async def _do(self, task: RoundTask) -> None:
        if task.kind is TaskKind.INITIALISE:
            await self._upload(task, {"w": np.zeros(self.params, np.float32)}, "weights")
            return
        base = task.base
        assert base is not None
        path = f"/v1/blobs/{hex_of(base.weights_digest)}"
        got = await self._timed("download", self.carrier, "GET", path)
        if digest_of_bytes(got.body) != base.weights_digest:
            raise RuntimeError("a download is damaged")
        if task.kind is TaskKind.EVALUATE:
            await self._report(task)
            return
        await self._work(1.0)
        await self._upload(task, update_of(self.number, self.params), "difference")

    async def _work(self, part: float) -> None:
        """Pause for as long as this site's work takes: no two hospitals have machines or cohorts alike."""
        await asyncio.sleep(self.chance.uniform(0, part * self.training_seconds))

    async def _report(self, task: RoundTask) -> None:
        assert task.base is not None
        await self._work(LESSER_WORK)
        counts: Any = {"bins": BINS, "negative": [(64, 5)], "positive": [(192, 5)]}
        await self._post(
            EvaluationReport(
                site=self.hospital.name,
                task_id=task.task_id,
                task_digest=task.digest,
                study_digest=task.study_digest,
                version=task.base,
                histograms={"test": ScoreHistograms(**counts)},
                noise_epsilon=None,
            )
        )

    async def _upload(self, task: RoundTask, tensors: Weights, meaning: Any) -> None:
        data = encode_weights(tensors)
        notice = UpdateNotice(
            site=self.hospital.name,
            task_id=task.task_id,
            task_digest=task.digest,
            study_digest=task.study_digest,
            round=task.round,
            base_digest=None if task.base is None else task.base.weights_digest,
            payload_digest=digest_of_bytes(data),
            payload_bytes=len(data),
            manifest_digest=manifest_of(tensors).digest,
            steps=[meaning],
            weight=1.0,
            privacy=None,
        )
        envelope = self.hospital.signed(notice)
        state = (await self._timed("announce", self.carrier, "POST", "/v1/uploads", envelope)).json()
        path, place = f"/v1/uploads/{state['upload_id']}", {"Upload_Offset": str(state["offset"])}
        while state["receipt"] is None:
            state = (await self._timed("upload", self.carrier, "PATCH", path, data[state["offset"] :], **place)).json()

    async def _post(self, message: Message) -> None:
        await self._timed("message", self.carrier, "POST", "/v1/messages", self.hospital.signed(message))

    async def _timed(
        self, what: str, connection: Connection, method: str, path: str, body: bytes = b"", **more: str
    ) -> Any:
        began = time.perf_counter()
        answer = await connection.ask(method, path, body, **more)
        self.timings.requests.setdefault(what, []).append(time.perf_counter() - began)
        if answer.status >= 300:
            raise RuntimeError(f"{what}: status {answer.status}: {answer.body[:300]!r}")
        return answer


def update_of(number: int, params: int) -> Weights:
    """Return the update of a site: the same value everywhere."""
    return {"w": np.full(params, number * SCALE, np.float32)}
