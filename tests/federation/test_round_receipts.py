"""Receipts in a whole federation: a hospital that loses patients in the middle of a study is told of loudly."""

from contextlib import closing
from pathlib import Path
from typing import Any

from compose.live_view import milestones
from compose.report import build_report
from compose.simulated_hub import SimulatedHub
from compose.snapshot import snapshot_of
from protocol.messages import UpdateNotice, parse_message
from protocol.privacy_events import PrivacyEvent
from protocol.signing import read_unverified
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records
from site_node.opt_outs import record_opt_outs
from site_node.orders import read_order
from site_node.settings import SiteSettings, load_settings
from site_node.site_secrets import read_noise_key
from site_node.training.frozen_cohort import frozen_cohort
from site_node.work_receipts import Skipped, kept_receipts
from tests.federation.three_hospitals import ThreeHospitals, run

EPSILON = 8.0
"""Of each receipt: the noise moves a number by one once in 1500 times, so that what a round lacks is no chance."""
ASKING: dict[str, Any] = {
    "privacy": {"epsilon": 40.0, "delta": 1e-3, "receipt_epsilon": EPSILON},
    "participants": {"minimum_sites": 2, "training_patients": 60},
}


def half_opt_out_before_round_2(settings: SiteSettings, task_id: str) -> None:
    order = read_order(settings.paths, task_id)
    if order is not None and (order.kind, order.round) == ("train", 2):
        training = frozen_cohort(settings.paths.frozen_cohorts, order.study_digest).of("train")
        record_opt_outs(settings.paths.opt_outs, [patient.key for patient in training[::2]])
    run(settings, task_id)


def notices(folder: Path) -> dict[int, UpdateNotice]:
    with closing(open_records(load_settings(folder).paths)) as database:
        envelopes = [row["envelope"] for row in database.execute("SELECT envelope FROM envelopes ORDER BY number")]
    messages = [parse_message(read_unverified(envelope)) for envelope in envelopes]
    return {message.round: message for message in messages if isinstance(message, UpdateNotice)}


def test_a_round_trained_on_half_of_a_hospital_s_patients_is_loud_everywhere(tmp_path: Path, hub: SimulatedHub) -> None:
    federation = ThreeHospitals(tmp_path, hub, half_opt_out_before_round_2, **ASKING)
    federation.run()
    assert (federation.view()["state"], federation.view()["final_version"]) == ("completed", 2)
    first, second = federation.row(1)["receipt"], federation.row(2)["receipt"]
    assert (first["short"], second["short"]) == (False, True)
    assert second["high"] < 0.9 * second["told"] <= first["high"]
    assert [federation.row(number, "bela")["receipt"]["short"] for number in (1, 2)] == [False, False]
    rounds = federation.rounds()
    assert [len(entry["warnings"]) for entry in rounds] == [0, 0, 1]
    (warning,) = rounds[2]["warnings"]
    assert warning.startswith("anna trained this round on a fraction")

    sites = hub.researcher.get("/v1/sites")
    said = [line for _, line in milestones(snapshot_of(federation.view(), rounds, sites))]
    assert f"round 2: WARNING: {warning}" in said
    version = hub.researcher.get(f"/v1/studies/{federation.study.digest}/versions/2")
    used = {part["site"]: part["used"]["short"] for part in version["participants"]}
    assert used == {"anna": True, "bela": False, "clara": False}


def test_the_numbers_are_noised_charged_for_every_task_and_signed_and_the_reasons_stay_at_the_hospital(
    tmp_path: Path, hub: SimulatedHub
) -> None:
    federation = ThreeHospitals(tmp_path, hub, half_opt_out_before_round_2, **ASKING)
    federation.run()
    folder = tmp_path / "sites" / "anna"
    settings, sent = load_settings(folder), notices(folder)
    with closing(open_records(settings.paths)) as database:
        charged = [entry.event for entry in ledger_entries(database) if entry.patients == "training"]
    assert PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1 / EPSILON, count=2) in charged
    assert sent[0].receipt is None  # version 0 is built of no patient
    kept = kept_receipts(settings.paths, read_noise_key(settings.paths.noise_key))
    own = {one.receipt.round: one.receipt for one in kept if one.receipt and one.receipt.kind == "train"}
    for number in (1, 2):
        receipt = sent[number].receipt
        assert receipt is not None
        assert receipt.patients is not None
        assert abs(receipt.patients - own[number].patients) <= 8  # 44.4 scales are the longest draw
        assert receipt.noise_epsilon == EPSILON
    lost = own[1].patients - own[2].patients
    assert own[2].skipped[Skipped.OPTED_OUT].patients == lost > 1
    assert own[2].images_matched == own[1].images > own[2].images


def test_a_study_that_asks_for_no_number_warns_of_nothing_and_the_report_says_so(
    tmp_path: Path, hub: SimulatedHub
) -> None:
    terms = ASKING | {"privacy": {"epsilon": 4.0, "delta": 1e-3}}
    federation = ThreeHospitals(tmp_path, hub, half_opt_out_before_round_2, **terms)
    federation.run()
    assert [entry["warnings"] for entry in federation.rounds()] == [[], [], []]
    report = build_report(hub.researcher.client, federation.study.digest, {}, noise="seeded")
    last = report["rounds"][-1]
    assert last["warnings"] == []
    assert {site["receipt"]["patients"] for site in last["sites"]} == {None}
