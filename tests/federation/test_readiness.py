"""The researcher's part of readiness in a whole federation: told before an approval, shown beside the hospital."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import do_order
from site_node.governance.egress import egress_entries
from site_node.governance.records import open_records
from site_node.governance.telling_readiness import ask_as_person
from site_node.settings import SiteSettings, load_settings
from tests.federation.three_hospitals import ThreeHospitals

PERSON = (
    "approval: person\ntell_readiness: {}\nnetworks: any\nmodalities: any\ndp_required: false\n"
    "minimum_patients: 1\nminimum_held_out_patients: 1\nhold_out_trained: always\n"
)
"""Nothing for a person to weigh, so that the simulation's leaves the study undecided."""


def anna(folder: Path) -> SiteSettings:
    return load_settings(folder / "sites" / "anna")


def shown(federation: ThreeHospitals) -> dict[str, Any]:
    return {site["site"]: (site["state"], site["readiness"]) for site in federation.view()["sites"]}


def some_steps(federation: ThreeHospitals) -> None:
    for _ in range(6):
        for site in federation.sites:
            site.step()
        federation.hub.step()


@pytest.mark.parametrize(("tell", "labels"), [("asked", "found"), ("always", "not-told")])
def test_a_hospital_on_which_nobody_decided_yet_has_told_of_its_machine(
    tmp_path: Path, hub: SimulatedHub, tell: str, labels: str
) -> None:
    federation = ThreeHospitals(tmp_path, hub, do_order, participants={"minimum_sites": 3})
    settings = anna(tmp_path)
    settings.policy.write_text(PERSON.format(tell))
    some_steps(federation)
    if tell == "asked":
        assert shown(federation)["anna"] == ("invited", None)
        with closing(open_records(settings.paths)) as database:
            assert ask_as_person(database, federation.study.digest, 0.0) == 1
        some_steps(federation)
    assert federation.view()["state"] == "proposed"
    told = shown(federation)
    assert (told["bela"], told["clara"]) == (("approved", None), ("approved", None))
    state, report = told["anna"]
    assert state == "invited"
    assert report.pop("received_at") > 0
    assert report.pop("minutes_a_round") != "not-measured"
    assert report == {
        **{"number": 1, "policy": "allows", "tasks": "taken", "train_hours": 168, "epsilon": None},
        **{"noise_multiplier": None, "labels": labels, "device": "cpu", "decoders": "all", "stand_ins": 4},
        **{"class_names": "none" if labels == "found" else "not-told", "disk": "suffices", "memory": "suffices"},
    }
    with closing(open_records(settings.paths)) as database:
        sent = [entry for entry in egress_entries(database) if entry["kind"] == "wardround.readiness/1"]
    assert [entry["receipt"]["accepted"] for entry in sent] == [True]


def test_a_site_that_has_told_goes_on_as_any_other(tmp_path: Path, hub: SimulatedHub) -> None:
    federation = ThreeHospitals(tmp_path, hub, do_order)
    with anna(tmp_path).policy.open("a", encoding="utf-8") as policy:
        policy.write("tell_readiness: always\n")
    federation.run()
    assert federation.view()["state"] == "completed"
    assert [report is not None for _, report in shown(federation).values()] == [True, False, False]
