"""Three hospitals with DICOM and a hub in one process, where one's worker may do other than it should."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from protocol.study import parse_study
from site_node.settings import SiteSettings
from site_node.training import job

NAMES = ("anna", "bela", "clara")
STUDY: dict[str, Any] = {
    "name": "bright-corner",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"minimum_sites": 2, "quorum": 0.6},
    "privacy": {"epsilon": None},
}
Work = Callable[[SiteSettings, str], None]


class ThreeHospitals:
    """A hub and three hospitals with DICOM; `work` is what the worker of the first does in place of the job."""

    def __init__(self, folder: Path, hub: SimulatedHub, work: Work, **changes: Any) -> None:
        self.hub, self.study = hub, parse_study(STUDY | changes)
        self.sites = [
            SimulatedSite(name, folder / name, folder / "sites" / name, hub, 0, 1, work if name == "anna" else run)
            for name in NAMES
        ]
        for site in self.sites:
            site.index()
        hub.propose(self.study)

    def run(self) -> None:
        for _ in range(200):
            if self.view()["state"] != "running" and self.view()["state"] != "proposed":
                return
            for site in self.sites:
                site.step()
            self.hub.step()
        raise AssertionError("the study never ends")

    def view(self) -> Any:
        return self.hub.researcher.get(f"/v1/studies/{self.study.digest}")

    def rounds(self) -> Any:
        return self.hub.researcher.get(f"/v1/studies/{self.study.digest}/rounds")

    def row(self, number: int, site: str = "anna") -> Any:
        return next(row for row in self.rounds()[number]["sites"] if row["site"] == site)


def run(settings: SiteSettings, task_id: str) -> None:
    job.run_order(settings, task_id)
