"""Weights of two classes from noised figures, in a whole federation: each hospital's own, of what the hub was told."""

from contextlib import closing
from pathlib import Path

import pytest

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import do_order
from protocol.class_balance import balanced_weights
from site_node.governance.quality_records import quality_of
from site_node.governance.records import open_records, study_record
from site_node.orders import read_order
from site_node.settings import SiteSettings, load_settings
from tests.federation.three_hospitals import STUDY, ThreeHospitals

BALANCED = {
    "label": {**STUDY["label"], "balance": "quality"},
    "site_rates": {"adapt": "quality", "quality_epsilon": 2.0, "least": 1, "most": 1},
}


def test_every_training_is_weighted_by_what_the_hub_was_told_of_the_hospital(tmp_path: Path, hub: SimulatedHub) -> None:
    seen: list[list[float] | None] = []

    def noting(settings: SiteSettings, task_id: str) -> None:
        order = read_order(settings.paths, task_id)
        if order is not None and order.kind == "train":
            seen.append(order.class_weights)
            assert (order.rate_factor or 1.0) == 1.0
        do_order(settings, task_id)

    federation = ThreeHospitals(tmp_path, hub, noting, **BALANCED)
    federation.run()
    assert federation.view()["state"] == "completed"
    with closing(open_records(load_settings(tmp_path / "sites" / "anna").paths)) as database:
        record, figures = study_record(database, federation.study.digest), quality_of(database, federation.study.digest)
    assert record is not None
    assert figures is not None
    assert seen == [pytest.approx(balanced_weights(figures, record.training_patients))] * STUDY["rounds"]
