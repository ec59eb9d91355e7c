"""What the hub takes from sites in a masked round: in its phase, of members, once; and what it tells them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event

from hub.auth.coordinator import enrol_site, invite_site
from hub.rounds.deadlines import tick
from hub.services import Services
from hub.storage.masking_stores import masking_round
from protocol.digest import digest_of_bytes
from protocol.message import Message
from protocol.messages import Receipt, RoundTask, TaskCancelled, TaskKind
from protocol.secure_aggregation.histograms import vector_length
from protocol.secure_aggregation.key_agreement import commitment_to, public_key_of
from protocol.secure_aggregation.roster import roster_of
from protocol.secure_messages import (
    WORDS_OF_A_PIECE,
    MaskedHistograms,
    MaskingDelivery,
    MaskingKeys,
    MaskingProof,
    MaskingReveal,
    MaskingRoster,
    MaskingShares,
    MaskingSurvivors,
    SurvivorsSeen,
    digest_of_names,
)
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Clock, Queue
from tests.hub.rounds.bench import ZERO, Bench, study_of
from tests.protocol.secure_aggregation.members import Member

NAMES = ("anna", "bela", "clara", "dora", "emil")
SEALED, SHARE = "0" * 188, "0" * 66
VECTOR = bytes(2 * (6 + 5))


@dataclass
class MaskedBench:
    """A hub in a masked round with five hospitals whose words are made by hand."""

    bench: Bench
    members: dict[str, Member] = field(default_factory=lambda: {name: Member.named(name) for name in NAMES})

    number: int = 1
    kind: TaskKind = TaskKind.TRAIN

    def begin(self) -> None:
        """Start a study: up to the round's training, or where sites judge, up to the judging of version 0."""
        study = study_of(
            participants={"minimum_sites": 4, "deadline_seconds": 1000.0},
            secure_aggregation={"method": "masking", "maximum_sites": 5, "maximum_weight": 100, "phase_seconds": 100.0},
        )
        self.bench.start(study, (10, 20, 30, 40, 50), evaluates=self.kind is TaskKind.EVALUATE)
        (task,) = self.bench.tasks(TaskKind.INITIALISE)
        self.bench.update(task, ZERO)

    def task(self, name: str) -> RoundTask:
        tasks: list[RoundTask] = self.bench.mail(self.bench.hospital(name), RoundTask)
        return next(task for task in tasks if task.kind is self.kind)

    def fields(self, name: str) -> dict[str, Any]:
        task = self.task(name)
        of = {"study_digest": task.study_digest, "round": self.number, "task_kind": self.kind.value}
        return {"site": name, "task_id": task.task_id, **of}

    def keys(self, name: str) -> MaskingKeys:
        member = self.members[name]
        return MaskingKeys(
            **self.fields(name),
            channel_key=public_key_of(member.channel).hex(),
            mask_key=public_key_of(member.mask).hex(),
            seed_commitment=commitment_to(member.seed),
        )

    @property
    def roster(self) -> str:
        return roster_of(self.keys(name) for name in NAMES).digest

    def shares(self, name: str, **changes: Any) -> MaskingShares:
        fields = {"roster_digest": self.roster, "sealed": dict.fromkeys(set(NAMES) - {name}, SEALED), **changes}
        return MaskingShares(**self.fields(name), **fields)

    def seen(self, name: str, **changes: Any) -> SurvivorsSeen:
        lists = {"members_digest": digest_of_names(NAMES), "survivors_digest": digest_of_names(NAMES)}
        return SurvivorsSeen(**self.fields(name), roster_digest=self.roster, **{**lists, **changes})

    def reveal(self, name: str, **changes: Any) -> MaskingReveal:
        fields = {
            "roster_digest": self.roster,
            "seed_shares": dict.fromkeys(NAMES, SHARE),
            "key_shares": {},
            **changes,
        }
        return MaskingReveal(**self.fields(name), **fields)

    def say(self, name: str, message: Message) -> Receipt:
        return self.bench.say(self.bench.hospital(name), message)

    def all_say(self, make: Any) -> None:
        for name in NAMES:
            receipt = self.say(name, make(name))
            assert receipt.accepted, receipt.reason

    def upload(self, name: str, payload: bytes = VECTOR, **changes: Any) -> Receipt:
        steps = {"steps": ["difference", "quantised", "masked"], **changes}
        task = self.task(name)
        notice = self.bench.notice(task, payload, ZERO, **steps)
        return self.bench.receipt(self.bench.send(task, notice, payload))

    def phase(self) -> str:
        with self.bench.services.reading() as session:
            found = masking_round(session, self.bench.study.digest, self.number, self.kind.value)
            assert found is not None
            return found.phase

    def mail(self, name: str, kind: type[Any]) -> list[Any]:
        return self.bench.mail(self.bench.hospital(name), kind)

    def vector(self, name: str, **changes: Any) -> MaskedHistograms:
        words = ["0" * 512] * (vector_length(self.bench.study) // WORDS_OF_A_PIECE)
        fields = {"task_digest": self.task(name).digest, "noise_epsilon": None, "roster_digest": self.roster}
        return MaskedHistograms(**{**self.fields(name), **fields, "words": words, **changes})


@pytest.fixture
def masked(services: Services, clock: Clock, queue: Queue) -> MaskedBench:
    return begun(MaskedBench, services, clock, queue)


@pytest.fixture
def judged(services: Services, clock: Clock, queue: Queue) -> MaskedBench:
    return begun(partial(MaskedBench, number=0, kind=TaskKind.EVALUATE), services, clock, queue)


def begun(make: Callable[[Bench], MaskedBench], services: Services, clock: Clock, queue: Queue) -> MaskedBench:
    hospitals = [Hospital(name, clock) for name in NAMES]
    for hospital in hospitals:
        enrol_site(services, hospital.enrolment(invite_site(services, hospital.name, "operator:console").code))
    found = make(Bench(services, hospitals, queue))
    found.begin()
    return found


def test_each_phase_s_messages_lead_to_the_next_and_the_round_to_its_close(masked: MaskedBench) -> None:
    assert masked.phase() == "keys"
    masked.all_say(masked.keys)
    assert masked.phase() == "shares"
    [roster] = masked.mail("anna", MaskingRoster)
    assert len(roster.members) == 5
    masked.all_say(masked.shares)
    assert masked.phase() == "uploads"
    [delivery] = masked.mail("anna", MaskingDelivery)
    assert sorted(delivery.sealed) == ["bela", "clara", "dora", "emil"]
    for name in NAMES:
        assert masked.upload(name).accepted
    assert (masked.phase(), masked.bench.round()["state"]) == ("seen", "opening")
    [survivors] = masked.mail("clara", MaskingSurvivors)
    assert survivors.survivors == list(NAMES)
    for name in NAMES[:4]:
        assert masked.say(name, masked.seen(name)).accepted
    assert masked.phase() == "reveals"  # four of five are enough
    [proof] = masked.mail("emil", MaskingProof)
    assert len(proof.seen) == 4
    for name in NAMES[:4]:
        assert masked.say(name, masked.reveal(name)).accepted
    assert masked.phase() == "reveals"  # four would be enough, but zeros are no shares: the fifth may make up for one
    assert masked.say("emil", masked.reveal("emil")).accepted
    assert (masked.phase(), masked.bench.round()["state"]) == ("opened", "aggregating")
    late = masked.say("emil", masked.seen("emil"))
    assert late.accepted  # it came too late to matter, and that is no fault
    assert not masked.bench.close()  # zeros are no shares: the sum stays closed
    assert masked.bench.view()["state"] == "failed"


@pytest.mark.parametrize(("number", "kind"), [(1, TaskKind.TRAIN), (0, TaskKind.EVALUATE)])
def test_a_message_loads_its_own_task_and_none_of_the_others(
    services: Services, clock: Clock, queue: Queue, number: int, kind: TaskKind
) -> None:
    masked = begun(partial(MaskedBench, number=number, kind=kind), services, clock, queue)
    keys, sent = masked.keys("anna"), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = masked.bench.services.database.engine
    event.listen(engine, "before_cursor_execute", note)
    assert masked.say("anna", keys).accepted
    event.remove(engine, "before_cursor_execute", note)
    tasks = [statement for statement in sent if "tasks.document" in statement and "tasks.task_id = " not in statement]
    assert (tasks, any("FROM tasks" in statement for statement in sent)) == ([], True)


def test_repeating_a_message_changes_nothing_and_a_second_one_is_refused(masked: MaskedBench) -> None:
    assert masked.say("anna", masked.keys("anna")).accepted
    assert masked.say("anna", masked.keys("anna")).accepted
    masked.members["anna"] = Member.named("anna")
    receipt = masked.say("anna", masked.keys("anna"))
    assert (receipt.accepted, "one is taken of each site" in receipt.reason) == (False, True)


def test_keys_that_are_another_s_or_none_are_refused(masked: MaskedBench) -> None:
    assert masked.say("anna", masked.keys("anna")).accepted
    stolen = masked.keys("bela").model_copy(update={"mask_key": masked.keys("anna").mask_key})
    twice = masked.keys("bela").model_copy(update={"mask_key": masked.keys("bela").channel_key})
    small = masked.keys("bela").model_copy(update={"mask_key": "00" * 32})
    for keys, words in ((stolen, "used once"), (twice, "used once"), (small, "is none")):
        receipt = masked.say("bela", keys)
        assert (receipt.accepted, words in receipt.reason) == (False, True)
    assert masked.say("bela", masked.keys("bela")).accepted


def test_messages_out_of_their_phase_are_late_or_early(masked: MaskedBench) -> None:
    assert not masked.say("anna", masked.reveal("anna")).accepted
    assert not masked.say("anna", masked.seen("anna")).accepted
    for name in NAMES[:4]:
        masked.say(name, masked.keys(name))
    masked.bench.services.clock.now += 101.0  # type: ignore[attr-defined]
    assert tick(masked.bench.services) == 1
    assert masked.phase() == "shares"
    receipt = masked.say("emil", masked.keys("emil"))
    assert (receipt.accepted, receipt.reason) == (False, "The round went on without this message.")
    assert [c.task_id for c in masked.mail("emil", TaskCancelled)] == [masked.task("emil").task_id]


def test_shares_of_another_roster_or_for_other_receivers_are_refused(masked: MaskedBench) -> None:
    masked.all_say(masked.keys)
    foreign = masked.shares("anna", roster_digest=digest_of_bytes(b"another"))
    fewer = masked.shares("anna", sealed={"bela": SEALED})
    for shares in (foreign, fewer):
        assert not masked.say("anna", shares).accepted
    assert masked.say("anna", masked.shares("anna")).accepted


def test_what_others_saw_or_reveal_beyond_the_lists_is_refused(masked: MaskedBench) -> None:
    masked.all_say(masked.keys)
    masked.all_say(masked.shares)
    for name in NAMES[:4]:
        assert masked.upload(name).accepted
    masked.bench.services.clock.now += 1001.0  # type: ignore[attr-defined]
    tick(masked.bench.services)
    assert masked.phase() == "seen"
    there = list(NAMES[:4])
    seen_there = digest_of_names(there)
    assert masked.mail("emil", MaskingSurvivors) == []
    assert not masked.say("emil", masked.seen("emil", survivors_digest=seen_there)).accepted
    assert not masked.say("anna", masked.seen("anna")).accepted
    for name in there:
        assert masked.say(name, masked.seen(name, survivors_digest=seen_there)).accepted
    seeds, both = dict.fromkeys(there, SHARE), {"key_shares": {"emil": SHARE, "anna": SHARE}}
    assert not masked.say("anna", masked.reveal("anna", seed_shares=seeds, **both)).accepted
    assert not masked.say("anna", masked.reveal("anna")).accepted  # the seed of a lost site is nobody's business
    assert masked.say("anna", masked.reveal("anna", seed_shares=seeds, key_shares={"emil": SHARE})).accepted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"payload": VECTOR + b"\0\0"}, "Expected a vector of 22 bytes"),
        ({"weight": 10.0}, "weight"),
        ({"steps": ["difference"]}, "list of steps"),
        ({"steps": ["difference", "quantised"]}, "list of steps"),
    ],
)
def test_an_update_that_is_no_masked_vector_is_refused(
    masked: MaskedBench, changes: dict[str, Any], words: str
) -> None:
    masked.all_say(masked.keys)
    masked.all_say(masked.shares)
    receipt = masked.upload("anna", **changes)
    assert (receipt.accepted, words in receipt.reason) == (False, True)


def test_a_stranger_s_and_another_round_s_words_are_refused(masked: MaskedBench) -> None:
    other = masked.keys("anna").model_copy(update={"round": 2})
    assert not masked.say("anna", other).accepted
    foreign = masked.keys("bela").model_copy(update={"site": "anna"})
    assert not masked.say("anna", foreign).accepted


def test_counts_are_taken_of_members_in_their_phase_and_of_the_study_s_length(judged: MaskedBench) -> None:
    judged.all_say(judged.keys)
    judged.all_say(judged.shares)
    assert judged.phase() == "uploads"
    vector = judged.vector("anna")
    assert judged.say("anna", vector).accepted
    assert judged.say("anna", vector).accepted  # said twice, taken once
    other = vector.model_copy(update={"words": ["1" * 512] * len(vector.words)})
    assert not judged.say("anna", other).accepted
    short = judged.say("bela", judged.vector("bela", words=vector.words[:-1]))
    assert (short.accepted, "length" in short.reason) == (False, True)
    assert [task.site for task in judged.bench.tasks(TaskKind.EVALUATE)] == ["clara", "dora", "emil"]
    for name in NAMES[2:]:
        judged.say(name, judged.vector(name))
    [survivors] = judged.mail("anna", MaskingSurvivors)
    assert (survivors.task_kind, survivors.survivors) == ("evaluate", ["anna", "clara", "dora", "emil"])


@pytest.mark.parametrize("field", ["task_digest", "roster_digest", "noise_epsilon"])
def test_counts_of_another_task_roster_or_noise_are_refused(judged: MaskedBench, field: str) -> None:
    judged.all_say(judged.keys)
    judged.all_say(judged.shares)
    changed: Any = 1.0 if field == "noise_epsilon" else digest_of_bytes(b"another")
    assert not judged.say("anna", judged.vector("anna", **{field: changed})).accepted


def test_a_report_in_clear_is_not_taken_in_a_study_with_masks(judged: MaskedBench) -> None:
    receipt = judged.bench.report(judged.task("anna"), [0.9], [0.1])
    assert not receipt.accepted
    assert "under masks only" in receipt.reason
