"""A gate whose database is older than what has left: nothing is answered twice, whatever a lying hub asks."""

import json
from pathlib import Path

import pytest

from protocol.messages import (
    Approval,
    LedgerCharge,
    LedgerRecord,
    Reason,
    RoundTask,
    TaskKind,
    TaskRefusal,
    UpdateNotice,
)
from protocol.secure_messages import MaskingReveal, SurvivorsSeen
from protocol.signing import SigningKey, sign
from site_node.governance import high_water
from site_node.governance.records import open_records
from tests.fakes.gated_site import GatedSite, study_of, weights
from tests.fakes.masked_peers import EVERYBODY, OWN, MaskedPeers
from tests.fakes.site_command import run
from tests.site_node.governance.test_masking import go_to_masked

FIRST, SECOND = study_of(name="first"), study_of(name="second")


def reconcile(site: GatedSite) -> None:
    status, output = run("reconcile", str(site.paths.root), "--yes")
    assert status == 0, output
    site.sweep()


def hear(site: GatedSite, *charges: LedgerCharge) -> None:
    """Let the hub's record of the site's charges come, as after a refusal with `ledger-behind`."""
    key = SigningKey.load_or_create(site.paths.identity_key)
    envelopes = [sign(charge.canonical_bytes(), key).decode() for charge in charges]
    site.post(LedgerRecord(site=site.settings.name, charges=envelopes))
    site.sweep()


def answer(site: GatedSite, task: RoundTask, value: float = 0.5) -> None:
    """Let a task come and the worker answer it; other values are another output."""
    from protocol.tensors import encode_weights

    site.give(task)
    site.hand_over(task, encode_weights(weights(value)))
    site.sweep()


def notices(site: GatedSite) -> list[UpdateNotice]:
    return [message for message in site.sent() if isinstance(message, UpdateNotice)]


def refusals(site: GatedSite) -> list[Reason]:
    return [message.reason for message in site.sent() if isinstance(message, TaskRefusal)]


def is_behind(site: GatedSite) -> bool:
    return high_water.is_behind(site.paths, open_records(site.paths))


def mark_of(site: GatedSite) -> dict[str, object]:
    found: dict[str, object] = json.loads(site.paths.mark_of_egress.read_bytes())
    return found


def check_that_it_stays_given_up(site: GatedSite) -> None:
    """Propose the study that was given up once more, and let a task of it come: neither is answered but by a no."""
    site.join(FIRST)
    refused = site.sent()[-1]
    assert isinstance(refused, Approval)
    assert (refused.decision, refused.reason) == ("refused", Reason.APPROVAL_WITHDRAWN)
    answer(site, site.task(FIRST), 0.25)
    assert notices(site) == []


def test_a_round_that_was_answered_after_the_backup_is_not_answered_otherwise(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    assert len(notices(site)) == 1
    site.restore(backup, with_mark=False)
    assert is_behind(site)
    answer(site, site.task(FIRST, task_id="another-task", deadline_seconds=61.0), 0.25)
    answer(site, site.task(FIRST, 2), 0.25)
    assert notices(site) == []
    assert refusals(site) == [Reason.LEDGER_BEHIND] * 2
    reconcile(site)
    assert not is_behind(site)
    withdrawn = site.sent()[-1]
    assert isinstance(withdrawn, Approval)
    assert (withdrawn.study_digest, withdrawn.decision) == (FIRST.digest, "withdrawn")
    answer(site, site.task(FIRST, task_id="a-third-task"), 0.25)
    answer(site, site.task(FIRST, 3), 0.25)
    assert notices(site) == []
    assert refusals(site)[2:] == [Reason.APPROVAL_WITHDRAWN] * 2


def test_a_task_that_was_accepted_before_the_backup_and_answered_after_it_is_not_computed_again(
    site: GatedSite,
) -> None:
    site.join(FIRST)
    task = site.give(site.task(FIRST))
    backup = site.back_up()
    answer(site, task)
    site.restore(backup, with_mark=False)
    site.hand_over(task)
    site.sweep()
    assert notices(site) == []
    assert refusals(site) == [Reason.LEDGER_BEHIND]


def test_an_evaluation_of_what_was_forgotten_is_refused_too(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    task = site.give(site.task(FIRST, 0, TaskKind.EVALUATE))
    site.hand_over_scores(task)
    site.sweep()
    site.restore(backup, with_mark=False)
    site.hand_over_scores(site.give(site.task(FIRST, 0, TaskKind.EVALUATE, task_id="another-task")))
    site.sweep()
    assert refusals(site) == [Reason.LEDGER_BEHIND]


def test_later_studies_go_on_after_the_forgotten_ones_are_given_up(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    site.restore(backup, with_mark=False)
    site.join(SECOND)
    approval = site.sent()[-1]
    assert isinstance(approval, Approval)
    assert (approval.decision, approval.reason) == ("refused", Reason.LEDGER_BEHIND)
    reconcile(site)
    answer(site, site.task(SECOND))
    [notice] = notices(site)
    assert notice.study_digest == SECOND.digest
    assert not is_behind(site)


def test_a_study_that_the_database_never_knew_cannot_be_proposed_as_if_it_were_new(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    answer(site, site.task(FIRST))
    spent = site.budget()["epsilon"]
    site.restore(backup, with_mark=False)
    reconcile(site)  # the hub says nothing of the charge; it lies beside the mark
    found = site.budget()
    assert [gap["study_digest"] for gap in found["gaps"]] == [FIRST.digest]
    assert found["epsilon"] == pytest.approx(spent)
    check_that_it_stays_given_up(site)


def test_a_person_cannot_approve_again_what_was_given_up(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    site.restore(backup, with_mark=False)
    reconcile(site)
    said = len(site.sent())
    assert run("approve", str(site.paths.root), FIRST.digest, "--person", "olga", "--yes")[0] == 0
    site.sweep()
    assert len(site.sent()) == said
    [shown] = json.loads(run("studies", str(site.paths.root), "--json")[1])
    assert (shown["state"], "restored backup" in shown["explanation"]) == ("withdrawn", True)


@pytest.mark.parametrize("passed", ["uploads", "seen"])
def test_a_masked_round_is_revealed_for_one_list_though_the_gate_forgot_which(peers: MaskedPeers, passed: str) -> None:
    fewer = tuple(name for name in EVERYBODY if name != "bela")
    go_to_masked(peers)
    if passed == "seen":
        peers.say(peers.survivors())
    peers.site.receive_all()
    peers.site.sweep()
    backup = peers.site.back_up()
    second = peers.survivors(fewer), peers.proof(["clara", "dora", "emil", OWN], fewer)
    if passed == "uploads":
        peers.say(peers.survivors())
    peers.say(peers.proof())
    assert len(peers.own(MaskingReveal)) == 1
    peers.site.restore(backup, with_mark=False)
    for message in second:
        peers.say(message)
    assert peers.site.sent() == []
    reconcile(peers.site)
    for message in second:
        peers.say(message)
    assert [type(message) for message in peers.site.sent()] == [Approval]  # withdrawn
    assert peers.secrets() == (None, None, None)


def test_what_the_mark_prevents_happens_without_it(peers: MaskedPeers) -> None:
    """The whole site was restored, mark and all: docs/operations.md says what its administrator does then."""
    fewer = tuple(name for name in EVERYBODY if name != "bela")
    go_to_masked(peers)
    backup = peers.site.back_up()
    second = peers.survivors(fewer)
    peers.say(peers.survivors())
    [first] = peers.own(SurvivorsSeen)
    peers.site.restore(backup)
    peers.say(second)
    [again] = peers.own(SurvivorsSeen)
    assert again.survivors_digest != first.survivors_digest


def test_the_mark_is_on_the_disk_before_anything_is_in_the_outbox(site: GatedSite) -> None:
    seen: list[tuple[int, list[int]]] = []

    def look(step: str) -> None:
        if step == "mark advanced":
            placed = [int(path.name.split(".")[0]) for path in site.paths.outbox.glob("*.dsse.json")]
            seen.append((int(str(mark_of(site)["number"])), placed))
        if step == "outbox filled":
            placed = [int(path.name.split(".")[0]) for path in site.paths.outbox.glob("*.dsse.json")]
            assert max(placed) <= int(str(mark_of(site)["number"]))

    site.checkpoint = look
    site.join(FIRST)
    answer(site, site.task(FIRST))
    assert len(seen) >= 2
    assert all(number > max(placed, default=0) for number, placed in seen)
    assert mark_of(site)["studies"] == [FIRST.digest]


def test_a_power_cut_between_mark_and_outbox_loses_nothing_and_is_no_restored_backup(site: GatedSite) -> None:
    site.join(FIRST)
    task = site.give(site.task(FIRST))
    site.hand_over(task)
    site.lose_power_at("mark advanced")
    assert not is_behind(site)
    site.sweep()
    assert len(notices(site)) == 1


@pytest.mark.parametrize("spoilt", ["gone", "damaged"])
def test_a_mark_that_is_gone_or_damaged_could_have_said_more_and_is_reconciled(site: GatedSite, spoilt: str) -> None:
    site.join(FIRST)
    answer(site, site.task(FIRST))
    if spoilt == "gone":
        site.paths.mark_of_egress.unlink()
    else:
        site.paths.mark_of_egress.write_bytes(b'{"number": 1')
    assert is_behind(site)
    assert json.loads(run("status", str(site.paths.root), "--json")[1])["behind_mark"] is True
    answer(site, site.task(FIRST, 2))
    assert refusals(site) == [Reason.LEDGER_BEHIND]
    charges = site.charges()
    reconcile(site)
    hear(site, *charges)
    site.join(SECOND)
    answer(site, site.task(SECOND, task_id="of-the-second"))
    assert notices(site)[-1].study_digest == SECOND.digest
    assert mark_of(site)["studies"] == sorted([FIRST.digest, SECOND.digest])


def test_a_backup_after_which_nothing_left_is_restored_without_ado(site: GatedSite) -> None:
    site.join(FIRST)
    answer(site, site.task(FIRST))
    site.restore(site.back_up(), with_mark=False)
    assert not is_behind(site)
    answer(site, site.task(FIRST, 2))
    assert refusals(site) == []


def test_a_database_that_is_lost_whole_is_as_old_as_one_can_be(site: GatedSite) -> None:
    empty = site.back_up()
    site.join(FIRST)
    answer(site, site.task(FIRST))
    site.restore(empty, with_mark=False)
    assert is_behind(site)
    found = json.loads(run("reconcile", str(site.paths.root), "--json")[1])
    assert (found["behind_mark"], found["answered_studies"]) == (True, [FIRST.digest])


def test_a_second_restore_after_the_first_was_reconciled_is_noticed_again(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    site.restore(backup, with_mark=False)
    reconcile(site)
    site.join(SECOND)
    answer(site, site.task(SECOND))
    site.restore(backup, with_mark=False)
    assert is_behind(site)
    reconcile(site)
    answer(site, site.task(SECOND), 0.25)
    answer(site, site.task(FIRST), 0.25)
    assert notices(site) == []


@pytest.mark.parametrize("backed_up_before", range(6))
def test_over_both_lives_of_a_gate_a_round_has_one_output(site: GatedSite, backed_up_before: int) -> None:
    """Whenever the backup was made, and though every task is asked again, in another way, before and after."""
    given = [("join", FIRST, 0), *(("answer", FIRST, number) for number in (1, 2, 3)), ("join", SECOND, 0)]
    given.append(("answer", SECOND, 1))
    backup = site.back_up()
    for number, (what, study, round_number) in enumerate(given):
        if number == backed_up_before:
            backup = site.back_up()
        if what == "join":
            site.join(study)
        else:
            answer(site, site.task(study, round_number))
    outputs = [(n.study_digest, n.round, n.payload_digest) for n in notices(site)]
    site.restore(backup, with_mark=False)
    for life in range(2):
        for study in (FIRST, SECOND):
            site.join(study)
            for number in (1, 2, 3):
                task = site.task(study, number, task_id=f"other-{life}-{number}-{study.name}")
                answer(site, task, 0.125 * (1 + life))
        outputs += [(n.study_digest, n.round, n.payload_digest) for n in notices(site)]
        reconcile(site)
    rounds = {(study, number) for study, number, _ in outputs}
    assert len(set(outputs)) == len(rounds)
    assert (FIRST.digest, 1) in rounds


def test_a_recorded_payload_that_the_backup_lacks_does_not_stop_the_outbox(site: GatedSite) -> None:
    site.join(FIRST)
    answer(site, site.task(FIRST))
    backup = site.back_up()  # the notice is recorded and not yet answered by the hub
    site.receive_all()
    site.sweep()
    assert list(site.paths.gate_payloads.iterdir()) == []
    site.restore(backup, with_mark=False)
    site.join(SECOND)
    assert [type(message) for message in site.sent()][-1] is Approval
    site.sweep()


def test_an_old_letter_in_the_outbox_is_not_sent_under_a_new_number(site: GatedSite, tmp_path: Path) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    [old] = site.paths.outbox.glob("*.payload")
    kept = {path.name: path.read_bytes() for path in site.paths.outbox.iterdir()}
    site.gate.close()
    site.paths.gate_database.write_bytes(backup.database)
    for path in site.paths.gate.glob("gate.sqlite-*"):
        path.unlink()
    assert set(kept) == {path.name for path in site.paths.outbox.iterdir()}
    site.start()
    assert not old.exists()


def test_a_mark_lost_a_second_time_is_behind_again_whatever_the_backup_remembers(site: GatedSite) -> None:
    site.paths.mark_of_egress.unlink(missing_ok=True)
    site.join(FIRST)
    site.paths.mark_of_egress.unlink()
    assert is_behind(site)
    assert "missing or damaged" in run("reconcile", str(site.paths.root), "--yes")[1]
    assert is_behind(site)
    hear(site, *site.charges())
    assert not is_behind(site)
    site.join(SECOND)
    backup = site.back_up()
    answer(site, site.task(SECOND))
    assert len(notices(site)) == 1
    site.restore(backup, with_mark=False)
    site.paths.mark_of_egress.unlink()
    assert is_behind(site)
    answer(site, site.task(SECOND, task_id="another-task"), 0.25)
    assert notices(site) == []
