"""Two hospitals with DICOM and a hub in one process, whose gates are backed up and brought back."""

from pathlib import Path
from typing import Any

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from protocol.study import StudySpec, parse_study
from site_node.budget_report import budget_overview
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records
from site_node.settings import SitePaths, load_settings
from tests.fakes.dicom import make_hospital

NAMES = ("north", "harbour")
TERMS: dict[str, Any] = {
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 2, "sampling_rate": 0.5},
    "rounds": 1,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}


class TwoHospitals:
    """The federation; `north` is the one that loses something."""

    def __init__(self, folder: Path, hub: SimulatedHub) -> None:
        self.hub, self.folder = hub, folder
        for number, name in enumerate(NAMES):
            make_hospital(folder / "images" / name, patients=24, size=16, seed=number)
        self.sites = {
            name: SimulatedSite(name, folder / "images" / name, folder / name, hub, seed=0, threads=1) for name in NAMES
        }
        for site in self.sites.values():
            site.index()

    @property
    def north(self) -> SitePaths:
        return SitePaths(self.folder / "north")

    def propose(self, name: str, **changes: Any) -> StudySpec:
        study = parse_study({"name": name, **TERMS, **changes})
        self.hub.propose(study)
        return study

    def step(self) -> int:
        return sum(site.step() for site in self.sites.values()) + self.hub.step()

    def rest(self, study: StudySpec) -> dict[str, Any]:
        """Let everybody work until nothing more happens; return how the hub shows the study."""
        for _ in range(400):
            if not self.step():
                shown: dict[str, Any] = self.hub.researcher.get(f"/v1/studies/{study.digest}")
                return shown
        raise AssertionError("it never rests")

    def budget(self) -> dict[str, Any]:
        """Return what `wardround site budget` shows of north."""
        return budget_overview(open_records(self.north), load_policy(load_settings(self.north.root).policy))
