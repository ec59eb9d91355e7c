"""A backup restored once more, and a mark that was lost: nothing is answered twice, and nothing is handed back."""

import json
from pathlib import Path

import pytest

from protocol.messages import MAX_RECORD_CHARGES, Approval, LedgerCharge, LedgerRecord, Reason
from protocol.secure_messages import SurvivorsSeen
from protocol.signing import SigningKey, sign
from site_node.governance import high_water, switches
from site_node.governance.records import open_records
from tests.fakes.gated_site import Backup, GatedSite
from tests.fakes.masked_peers import EVERYBODY, MaskedPeers
from tests.fakes.site_command import run
from tests.site_node.governance.test_high_water import (
    FIRST,
    SECOND,
    answer,
    check_that_it_stays_given_up,
    hear,
    is_behind,
    mark_of,
    notices,
    reconcile,
    refusals,
)
from tests.site_node.governance.test_masking import go_to_masked


def lose(site: GatedSite, backup: Backup) -> list[LedgerCharge]:
    """Lose the machine, mark and all, and bring the gate's database back; return what the hub keeps."""
    charges = site.charges()
    for path in site.paths.mark.rglob("*.json"):
        path.unlink()
    site.restore(backup, with_mark=False)
    with open_records(site.paths) as database:
        switches.turn(database, "marked", on=True)  # `site restore` does
    return charges


def reconcile_at_rest(site: GatedSite) -> str:
    """Reconcile while no gate runs."""
    status, output = run("reconcile", str(site.paths.root), "--yes")
    assert status == 0, output
    return output


def spent(site: GatedSite) -> float:
    return float(site.budget()["epsilon"])


@pytest.mark.parametrize("mark_is_lost", [False, True])
def test_the_same_backup_restored_twice_answers_no_round_otherwise(site: GatedSite, mark_is_lost: bool) -> None:
    site.join(FIRST)
    backup = site.back_up()
    answer(site, site.task(FIRST))
    charges = site.charges()
    if mark_is_lost:
        lose(site, backup)
    else:
        site.restore(backup, with_mark=False)
    reconcile_at_rest(site)
    site.restore(backup, with_mark=False)  # before the gate has begun its second life
    assert not high_water.fits(site.paths, open_records(site.paths))
    assert high_water.is_lost(site.paths, open_records(site.paths)) is mark_is_lost
    answer(site, site.task(FIRST, task_id="another-task"), 0.25)
    assert (notices(site), refusals(site)) == ([], [Reason.LEDGER_BEHIND])
    reconcile(site)
    hear(site, *charges)
    assert not is_behind(site)
    answer(site, site.task(FIRST, task_id="a-third-task"), 0.25)
    assert (notices(site), refusals(site)[1:]) == ([], [Reason.APPROVAL_WITHDRAWN])


def test_the_same_backup_restored_twice_signs_no_second_list_of_survivors(peers: MaskedPeers) -> None:
    go_to_masked(peers)
    peers.site.receive_all()
    peers.site.sweep()
    backup, second = peers.site.back_up(), peers.survivors(tuple(name for name in EVERYBODY if name != "bela"))
    peers.say(peers.survivors())
    assert len(peers.own(SurvivorsSeen)) == 1
    peers.site.restore(backup, with_mark=False)
    reconcile_at_rest(peers.site)
    peers.site.restore(backup, with_mark=False)
    peers.say(second)
    assert peers.own(SurvivorsSeen) == []
    assert peers.secrets() == (None, None, None)


def test_a_charge_that_was_made_up_for_is_not_handed_back_by_the_same_backup_restored_again(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    before = spent(site)
    charges = lose(site, backup)
    hear(site, *charges)
    reconcile(site)
    assert spent(site) == pytest.approx(before)
    site.restore(backup, with_mark=False)  # now the charge lies beside the mark: no word of the hub is needed
    assert spent(site) < before
    assert is_behind(site)
    reconcile_at_rest(site)
    assert spent(site) == pytest.approx(before)


def test_a_later_backup_restored_after_an_earlier_one_is_noticed_though_its_entries_fit(site: GatedSite) -> None:
    earlier = site.back_up()
    site.join(FIRST)
    later = site.back_up()
    answer(site, site.task(FIRST))
    lose(site, earlier)
    reconcile_at_rest(site)
    site.restore(later, with_mark=False)
    assert is_behind(site)
    reconcile(site)
    answer(site, site.task(FIRST, task_id="another-task"), 0.25)
    assert notices(site) == []
    with open_records(site.paths) as database:
        assert high_water.given_up(database) == {FIRST.digest}


def test_a_hub_that_is_silent_after_a_lost_mark_hands_no_budget_back(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    charges = lose(site, backup)
    said = reconcile_at_rest(site)
    assert ("not heard yet" in said, "holds everything" in said) == (True, False)
    assert json.loads(run("reconcile", str(site.paths.root), "--json")[1])["awaits_hub"] is True
    site.join(SECOND)  # the hub names no head
    refused = site.sent()[-1]
    assert isinstance(refused, Approval)
    assert (refused.decision, refused.reason) == ("refused", Reason.LEDGER_BEHIND)
    hear(site, *charges)  # what an honest hub answers
    assert site.record(SECOND).state == "refused"  # a charge is missing still
    reconcile(site)
    assert site.record(SECOND).state == "approved"
    assert spent(site) > 0


def test_where_nothing_was_charged_the_hub_s_answer_lets_the_site_go_on_by_itself(site: GatedSite) -> None:
    lose(site, site.back_up())
    reconcile_at_rest(site)
    site.join(SECOND)
    assert site.record(SECOND).state == "refused"
    hear(site)
    assert not is_behind(site)
    assert site.record(SECOND).state == "approved"
    assert mark_of(site)["has_gaps"] is True


def test_what_the_hub_said_before_the_administrator_reconciled_counts_too(site: GatedSite) -> None:
    site.join(FIRST)
    charges = lose(site, site.back_up())
    answer(site, site.task(FIRST, 2))  # refused with ledger-behind
    hear(site, *charges)
    assert is_behind(site)
    assert "holds everything" in reconcile_at_rest(site)
    assert not is_behind(site)


def test_a_study_that_was_approved_after_the_backup_does_not_begin_again_with_another_output(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    answer(site, site.task(FIRST))
    charges = lose(site, backup)
    reconcile_at_rest(site)
    hear(site, *charges)
    reconcile(site)
    check_that_it_stays_given_up(site)


def test_a_record_that_is_not_ended_or_not_ours_is_no_answer(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    [charge] = lose(site, backup)
    reconcile_at_rest(site)
    own = SigningKey.load_or_create(site.paths.identity_key)
    full = [sign(charge.canonical_bytes(), own).decode()] * MAX_RECORD_CHARGES
    for record in (
        LedgerRecord(site="another", charges=[]),
        LedgerRecord(site="st-anna", charges=[sign(charge.canonical_bytes(), SigningKey.generate()).decode()]),
        LedgerRecord(site="st-anna", charges=full),
    ):
        site.post(record)
        site.sweep()
        assert is_behind(site)
    hear(site)
    assert not is_behind(site)


def test_after_a_whole_site_was_restored_the_hub_is_heard_first(site: GatedSite, tmp_path: Path) -> None:
    backup = site.back_up()
    site.join(FIRST)
    charges = site.charges()
    site.restore(backup)
    assert not is_behind(site)  # nothing here can tell
    assert run("reconcile", str(site.paths.root), "--whole-site", "--yes")[0] == 0
    assert is_behind(site)
    hear(site, *charges)
    reconcile(site)
    assert not is_behind(site)
    assert spent(site) > 0
