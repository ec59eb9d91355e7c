"""Disks that fill up in the middle of a study: a hospital's worker's, agent's and gate's, and the hub's.

The hospital clara has a small disk under each of its processes' folders, so that each can be full alone; version 0 is
built elsewhere. A round goes on without it, its administrator and the researcher can read why, and after room was made
all goes on by itself.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from protocol.study import parse_study
from tests.fakes.walls import missing
from tests.fakes.walls_disks import Disk, move_onto
from tests.fakes.walls_federation import NAMES, WalledFederation, study_data, walled_federation
from tests.faults.invariants import (
    assert_audit_whole,
    assert_counted_once,
    assert_egress_verified,
    assert_ledgers_cover_what_left,
    assert_versions_whole,
    rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), pytest.mark.xdist_group("walls")]

PARAMETERS = 500_000
MODEL_BYTES = 4 * PARAMETERS
ROUNDS = 4
ROOMS = {"worker": ("worker", "handover"), "agent": ("agent", "inbox", "receipts"), "gate": ("gate", "outbox")}
"""Which of the hospital's folders lie on the disk of which process."""
MEGABYTES = {"worker": 64, "agent": 400, "gate": 64, "hub": 256}
WAIT_SECONDS = 400.0
SHORT_ROUND_SECONDS, LONG_ROUND_SECONDS = 30.0, 600.0
SLOW_MEGABITS, FAST_MEGABITS = 8.0, 1000.0
"""At the slow rate a version travels for two seconds: a disk is filled long before the first update has arrived."""


@dataclass
class FullDisks:
    """The federation, its small disks, and what is proposed to it."""

    federation: WalledFederation
    disks: dict[str, Disk]
    studies: list[str] = field(default_factory=list)

    @property
    def hub(self) -> Path:
        return self.federation.hub / "hub.sqlite"

    def propose(self, name: str, deadline_seconds: float) -> str:
        """Propose a study that needs two of the three hospitals."""
        data = study_data(name, 2, ROUNDS)
        data["participants"] |= {"quorum": 0.6, "deadline_seconds": deadline_seconds}
        data["privacy"] = {"epsilon": 1.0, "delta": 1e-5}
        self.studies.append(self.federation.propose(parse_study(data)))
        return self.studies[-1]

    def slow_all(self, megabits: float) -> None:
        for cable in self.federation.cables.values():
            cable.slow(megabits)

    def wait_for_round(self, digest: str, number: int) -> None:
        self.federation.wait_until(lambda: self.has_round(digest, number), WAIT_SECONDS, pause=0.05)

    def wait_for_end(self, digest: str) -> None:
        self.federation.wait_until(lambda: self.federation.state(digest)[0] not in ("proposed", "running"), 900)
        assert self.federation.state(digest) == ("completed", "")

    def has_round(self, digest: str, number: int) -> bool:
        return bool(rows(self.hub, "SELECT 1 FROM rounds WHERE study = ? AND number = ?", digest, number))

    def at_clara(self, digest: str, number: int) -> dict[str, Any]:
        """What the researcher reads of clara in a round."""
        seen = self.federation.rounds(digest)[number]["sites"]
        found: dict[str, Any] = next(one for one in seen if one["site"] == "clara")
        return found

    def states_at_clara(self, digest: str) -> list[str]:
        return [self.at_clara(digest, number)["train_state"] for number in range(1, ROUNDS + 1)]

    def empty_the_hub_s_log(self) -> None:
        """Let SQLite give back the room of its write-ahead log: what is written next needs new room."""
        with self.federation.services.database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def said(self, role: str, event: str) -> list[dict[str, Any]]:
        """The lines of a log that name an event."""
        lines = [line for line in self.federation.log(role).splitlines() if f'"event": "{event}"' in line]
        return [json.loads(line[line.index("{") :]) for line in lines]  # Celery puts its own prefix before a line

    @contextmanager
    def full(self, disk: str, but_bytes: int = 0) -> Iterator[Callable[[], None]]:
        """Fill a disk; what is yielded takes what is freed meanwhile. Room is made at the end, whatever happens."""

        def fill() -> None:
            self.disks[disk].fill(but_bytes)

        try:
            fill()
            yield fill
        finally:
            self.disks[disk].make_room()


@pytest.fixture(scope="module")
def full_disks() -> Iterator[FullDisks]:
    if problem := missing("tc", "ss"):
        pytest.fail(problem)
    disks: dict[str, Disk] = {}

    def mount(folder: Path, ending: ExitStack) -> None:
        for name, root in {"hub": folder / "hub", **{room: folder / "disks" / room for room in ROOMS}}.items():
            disks[name] = Disk.mount(root, MEGABYTES[name])
            ending.callback(disks[name].unmount)

    def move(name: str, site: Path) -> None:
        if name == "clara":
            for room, names in ROOMS.items():
                move_onto(disks[room], site, *names)

    with walled_federation(PARAMETERS, prepare=mount, enrolled=move) as federation:
        yield FullDisks(federation, disks)
        alive = {role for role, process in federation.running.items() if process.poll() is None}
        assert alive == set(federation.commands), "a full disk has ended a process"


def test_a_worker_without_room_for_its_update_answers_disk_full_and_takes_part_again(full_disks: FullDisks) -> None:
    digest = full_disks.propose("worker", LONG_ROUND_SECONDS)
    full_disks.wait_for_round(digest, 0)
    with full_disks.full("worker", but_bytes=MODEL_BYTES // 2):
        full_disks.wait_for_round(digest, 2)
    full_disks.wait_for_end(digest)
    first = full_disks.at_clara(digest, 1)
    assert (first["train_state"], first["reason"]) == ("refused", "disk-full")
    assert full_disks.states_at_clara(digest)[-1] == "accepted"
    assert {line["reason"] for line in full_disks.said("clara worker", "order_failed")} == {"disk-full"}


def test_a_worker_that_can_write_nothing_at_all_says_so_and_is_waited_for_no_longer_than_the_deadline(
    full_disks: FullDisks,
) -> None:
    digest = full_disks.propose("worker-without-a-byte", SHORT_ROUND_SECONDS)
    full_disks.wait_for_round(digest, 0)
    with full_disks.full("worker"):
        full_disks.wait_for_round(digest, 2)
    full_disks.wait_for_end(digest)
    assert full_disks.states_at_clara(digest)[0] != "accepted"
    assert "accepted" in full_disks.states_at_clara(digest)[1:]


@pytest.mark.parametrize("room", ["agent", "gate"])
def test_a_round_goes_on_without_a_hospital_whose_disk_is_full(full_disks: FullDisks, room: str) -> None:
    digest = full_disks.propose(f"without-{room}", SHORT_ROUND_SECONDS)
    full_disks.wait_for_round(digest, 0)
    with full_disks.full(room) as again:

        def went_on() -> bool:
            again()
            return full_disks.has_round(digest, 2)

        full_disks.federation.wait_until(went_on, WAIT_SECONDS)
    full_disks.wait_for_end(digest)
    assert full_disks.states_at_clara(digest)[0] != "accepted"
    assert "accepted" in full_disks.states_at_clara(digest)[1:]
    complaints = [
        line for event in ("held_back", "folder_not_usable") for line in full_disks.said(f"clara {room}", event)
    ]
    assert any("Make room" in line["remedy"] for line in complaints)


def test_a_hub_without_room_says_so_refuses_nobody_and_goes_on(full_disks: FullDisks) -> None:
    full_disks.slow_all(SLOW_MEGABITS)
    digest = full_disks.propose("hub", LONG_ROUND_SECONDS)
    full_disks.wait_for_round(digest, 1)
    full_disks.empty_the_hub_s_log()
    with full_disks.full("hub") as again:

        def turned_away() -> bool:
            again()
            return all(full_disks.said(f"{name} agent", "hub_away") for name in NAMES)

        full_disks.federation.wait_until(turned_away, WAIT_SECONDS)
        status, answer = full_disks.federation.call(
            "POST", "/v1/studies", parse_study(study_data("too-late", 2, 1)).canonical_bytes().decode()
        )
        assert (status, answer["error"]) == (507, "disk-full")
        assert "room" in answer["remedy"]
        assert full_disks.federation.call("GET", f"/v1/studies/{digest}")[0] == 200
    full_disks.slow_all(FAST_MEGABITS)
    full_disks.wait_for_end(digest)
    assert full_disks.states_at_clara(digest) == ["accepted"] * ROUNDS
    assert rows(full_disks.hub, "SELECT COUNT(*) FROM uploads WHERE state = 'refused'") == [(0,)]
    for name in NAMES:
        assert any("disk" in line["why"] for line in full_disks.said(f"{name} agent", "hub_away"))


def test_nothing_was_counted_twice_lost_or_left_unaccounted(full_disks: FullDisks) -> None:
    assert_versions_whole(full_disks.hub, ROUNDS)
    assert_counted_once(full_disks.hub)
    assert_ledgers_cover_what_left(full_disks.hub, full_disks.federation.sites, ROUNDS)
    assert_egress_verified(full_disks.federation.sites.values())
    assert_audit_whole(full_disks.hub)
