"""Merged patients and opt-outs in a whole federation: who trains, what the hub sees of it, and what is remembered."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from compose.simulated_hub import SimulatedHub
from site_node.cohort_members import pseudonym_key
from site_node.governance.patient_accounts import charged_patients
from site_node.governance.policy import load_policy
from site_node.governance.privacy_ledger import accounts
from site_node.governance.records import open_records, study_record
from site_node.opt_out_report import uses_of
from site_node.opt_outs import all_opt_outs, record_opt_outs
from site_node.orders import read_order
from site_node.settings import SiteSettings, load_settings
from site_node.site_secrets import read_noise_key
from site_node.training.frozen_cohort import frozen_cohort
from site_node.work_receipts import kept_receipts
from tests.federation.three_hospitals import ThreeHospitals, run

PRIVATE: dict[str, Any] = {
    "privacy": {"epsilon": 4.0, "delta": 1e-3},
    "participants": {"minimum_sites": 2, "training_patients": 60},
}


def opting_out_before_round_2(settings: SiteSettings, task_id: str) -> None:
    order = read_order(settings.paths, task_id)
    if order is not None and (order.kind, order.round) == ("train", 2):
        frozen = frozen_cohort(settings.paths.frozen_cohorts, order.study_digest)
        record_opt_outs(settings.paths.opt_outs, [frozen.of("train")[0].key], now=_received(settings) - 1e-6)
    run(settings, task_id)


def with_site_yaml_as_it_is(settings: SiteSettings, task_id: str) -> None:
    run(load_settings(settings.paths.root), task_id)


def _received(settings: SiteSettings) -> float:
    with closing(open_records(settings.paths)) as database:
        newest = database.execute("SELECT MAX(received_at) FROM tasks WHERE kind = 'train' AND round = 2")
        return float(newest.fetchone()[0])


def receipts(settings: SiteSettings) -> list[int]:
    found = [json.loads(path.read_bytes()) for path in sorted(settings.paths.worker_receipts.glob("*.json"))]
    return [receipt["patients"] for receipt in found if receipt["kind"] == "train"]


def test_who_opts_out_in_a_running_study_is_left_out_from_the_next_task_on_and_the_hub_sees_no_difference(
    tmp_path: Path, hub: SimulatedHub
) -> None:
    federation = ThreeHospitals(tmp_path, hub, opting_out_before_round_2, **PRIVATE)
    federation.run()
    assert (federation.view()["state"], federation.view()["final_version"]) == ("completed", 2)
    settings = load_settings(tmp_path / "sites" / "anna")
    first, second = receipts(settings)
    assert second == first - 1
    rows = [federation.row(number) for number in (1, 2)]
    assert [row["train_state"] for row in rows] == ["accepted", "accepted"]
    assert rows[0].get("patients") == rows[1].get("patients")
    with closing(open_records(settings.paths)) as database:
        key = pseudonym_key(read_noise_key(settings.paths.noise_key))
        [use] = uses_of(database, all_opt_outs(settings), key)
    assert (use.name, use.group, use.rounds, use.versions) == ("bright-corner", "training", (1,), (0,))


def test_a_merged_patient_trains_once_and_is_charged_once_under_each_name(tmp_path: Path, hub: SimulatedHub) -> None:
    federation = ThreeHospitals(tmp_path, hub, with_site_yaml_as_it_is, **PRIVATE)
    settings = load_settings(tmp_path / "sites" / "anna")
    ids = sorted({line.split(",")[0] for line in settings.labels.read_text().splitlines()[1:]})
    (settings.paths.root / "merges.csv").write_text(f"old_id,new_id\n{ids[0]},{ids[1]}\n{ids[1]},{ids[2]}\n")
    with settings.paths.configuration.open("a", encoding="utf-8") as file:
        file.write("merged_patients: merges.csv\n")
    federation.run()
    assert federation.view()["state"] == "completed"
    with closing(open_records(settings.paths)) as database:
        costs = dict(charged_patients(database, accounts(database, load_policy(settings.policy))))
        record = study_record(database, federation.study.digest)
    assert record is not None
    assert record.training_patients + record.held_out_patients == 22  # of 24 ids, three are one patient's
    assert len(costs) == record.training_patients + 2  # held-out patients are judged un-noised here
    assert len(set(costs.values())) == 1


def test_each_round_s_receipt_says_at_the_site_alone_how_much_of_the_cohort_it_used(
    tmp_path: Path, hub: SimulatedHub
) -> None:
    federation = ThreeHospitals(tmp_path, hub, opting_out_before_round_2, **PRIVATE)
    federation.run()
    settings = load_settings(tmp_path / "sites" / "anna")
    kept = kept_receipts(settings.paths, read_noise_key(settings.paths.noise_key))
    trained = {one.receipt.round: one.receipt for one in kept if one.receipt and one.receipt.kind == "train"}
    assert [trained[number].share for number in (1, 2)] == ["nine tenths or more"] * 2
    assert trained[1].matched == trained[2].matched == trained[1].patients == trained[2].patients + 1
    assert trained[2].study == "bright-corner"
