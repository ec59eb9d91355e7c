"""A version leaves as a MONAI Bundle and comes back as a study that hospitals train on from its weights."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from compose.in_memory import BASE_URL, InMemoryTransport
from compose.simulation import app as simulate
from hub.api.app import assemble
from hub.auth.coordinator import add_person
from hub.cli import app as hub
from hub.services import open_services
from hub.settings import load_settings
from protocol.digest import digest_of_bytes
from site_node.bundles import export, other_formats
from site_node.bundles.cli import app as bundle
from site_node.bundles.hub_versions import fetch_version, signed_in
from site_node.bundles.released import saved_version
from site_node.errors import BundleError
from tests.fakes.dicom import make_hospital

PASSWORD = "a long enough password"
STUDY: dict[str, Any] = {
    "name": "bright-corner",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "densenet"},
    "training": {"local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.1},
    "rounds": 1,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}


@contextmanager
def served(folder: Path) -> Iterator[tuple[Callable[[], InMemoryTransport], str]]:
    """Serve a hub's folder in memory, with a researcher in it; yields how to reach it, once each, and its key."""
    services = open_services(load_settings(folder), lambda _name, _arguments: None)
    app = assemble(services)
    add_person(services, "alice", "researcher", PASSWORD, "test")
    try:
        yield (lambda: InMemoryTransport(app)), services.key.public.text
    finally:
        services.waker.close()
        services.database.close()


def done(app: Any, *arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_a_version_goes_out_as_a_bundle_and_a_study_starts_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in ("as_onnx", "as_torchscript"):
        monkeypatch.setattr(export, writer, lambda *_: other_formats.Written(None, "not tried"))
    sites = []
    for number, name in enumerate(("north", "harbour")):
        make_hospital(tmp_path / name, patients=24, seed=number)
        sites += ["--site", f"{name}={tmp_path / name}"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    done(simulate, tmp_path / "study.yaml", "--out", tmp_path / "first", "--threads", 1, *sites)
    study = json.loads((tmp_path / "first" / "report.json").read_text())["study"]["digest"]
    saved, out, later = tmp_path / "saved", tmp_path / "bundle", tmp_path / "later.yaml"
    done(hub, "save-version", tmp_path / "first" / "hub", study, 1, saved)
    key = json.loads(done(hub, "init", tmp_path / "first" / "hub", "--json").output)["hub_key"]
    with served(tmp_path / "first" / "hub") as (reach, own_key):
        with signed_in(BASE_URL, "alice", PASSWORD, reach()) as client:
            fetched = fetch_version(client, study, 1, own_key)
            with pytest.raises(BundleError, match="404"):
                fetch_version(client, study, 7)
        with pytest.raises(BundleError, match="401"), signed_in(BASE_URL, "alice", "wrong " + PASSWORD, reach()):
            pass
    assert (own_key, fetched.weights) == (key, (saved / "weights.safetensors").read_bytes())
    assert fetched.lineage == saved_version(saved, key).lineage
    made = done(bundle, "export", out, "--from", saved, "--hub-key", key, "--license", "CC-BY-4.0")
    assert "is a MONAI Bundle" in made.output
    weights = digest_of_bytes((saved / "weights.safetensors").read_bytes())
    assert weights in (out / "docs" / "README.md").read_text()
    (tmp_path / "terms.yaml").write_text(yaml.safe_dump({"name": "later", "rounds": 1}))
    done(bundle, "import", out, "--out", later, "--terms", tmp_path / "terms.yaml")
    assert yaml.safe_load(later.read_text())["start"] == {"weights": weights}
    file = later.with_suffix(".safetensors")
    done(simulate, later, "--out", tmp_path / "second", "--threads", 1, "--weights", file, *sites)
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    assert report["study"]["state"] == "completed"
    again = tmp_path / "again"
    done(hub, "save-version", tmp_path / "second" / "hub", report["study"]["digest"], 0, again)
    assert (again / "weights.safetensors").read_bytes() == file.read_bytes()
