"""A bundle of somebody else becomes a study, is trained a round, and goes out as one that MONAI verifies and runs."""

import csv
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from typer.testing import CliRunner

from compose.simulation import app as simulate
from hub.cli import app as hub
from protocol.study import StudySpec
from protocol.tensors import decode_weights
from site_node.bundles import export, other_formats
from site_node.bundles.archive import open_bundle
from site_node.bundles.cli import app as bundle
from site_node.bundles.released import saved_version
from site_node.bundles.study_file import read_terms
from site_node.bundles.taking_in import take_in
from site_node.dicom.pixels import read_pixels
from site_node.errors import BundleError
from site_node.training.networks import build_network, load_into
from site_node.training.stepwise import prepared_volume
from site_node.training.transforms import preparation
from tests.fakes.dicom import make_hospital
from tests.fakes.drawn_hospital import make_drawn_volumes
from tests.fakes.zoo_bundles import ZooBundle, densenet_of_radiographs, segresnet_of_mr, unet_of_ct

WRITERS: tuple[Callable[..., ZooBundle], ...] = (densenet_of_radiographs, unet_of_ct, segresnet_of_mr)
TERMS: dict[str, Any] = {
    "cohort": {"minimum_patients": 4},
    "network": {"normalisation": "batch"},
    "training": {"local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.01},
    "rounds": 1,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": None},
    "evaluation": {"splits": ["test"]},
}


def done(app: Any, *arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def monai_bundle(folder: Path, *arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr


def make_site(folder: Path, study: StudySpec, seed: int) -> Path:
    if study.kind == "segmentation":
        make_drawn_volumes(folder, 12, seed=seed)
    else:
        make_hospital(folder, 12, seed=seed)
    return folder


def prepared(study: StudySpec, image: Path) -> NDArray[np.float32]:
    """Return an image, a file or a folder of one series, as training saw it."""
    if image.is_dir():
        picture = prepared_volume(study.preprocessing, sorted(image.iterdir()))
    else:
        picture = preparation(study.preprocessing)(read_pixels(image))
    return np.asarray(picture, np.float16).astype(np.float32)


def outputs(study: StudySpec, weights: bytes, image: Path) -> NDArray[np.float32]:
    network = build_network(study)
    load_into(network, decode_weights(weights))
    with torch.inference_mode():
        return np.asarray(network.eval()(torch.from_numpy(prepared(study, image))[None])[0])


def by_the_bundle(zoo: ZooBundle, image: Path, size: list[int]) -> NDArray[np.float32]:
    """Return what the bundle's own pipeline and network make of an image, as MONAI builds them of its config."""
    stated = [{**zoo.transforms[0], "reader": "PydicomReader"}, *zoo.transforms[1:]]
    fixed = {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": size}
    monai.data.set_track_meta(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI tells which readers are missing, and of pictures without a place
        pipeline = ConfigParser({"all": {"_target_": "Compose", "transforms": [*stated, fixed]}}).get_parsed_content(
            "all"
        )
        read = torch.as_tensor(pipeline({"image": image})["image"])
    monai.data.set_track_meta(False)
    with torch.inference_mode():
        said = zoo.network()(read[None])[0]
    return np.asarray(said if said.dim() > 1 else said[1:] - said[:1])  # of two classes a study has one logit


@pytest.mark.parametrize("write", WRITERS)
def test_a_foreign_bundle_is_trained_and_goes_out_again(
    tmp_path: Path, write: Callable[..., ZooBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in ("as_onnx", "as_torchscript"):
        monkeypatch.setattr(export, writer, lambda *_: other_formats.Written(None, "not tried"))
    zoo = write(tmp_path / "zoo")
    (tmp_path / "terms.yaml").write_text(yaml.safe_dump({**TERMS, **zoo.terms}))
    done(bundle, "import", zoo.folder, "--out", tmp_path / "study.yaml", "--terms", tmp_path / "terms.yaml")
    taken = take_in(zoo.folder, read_terms(tmp_path / "terms.yaml"))
    sites = {name: make_site(tmp_path / name, taken.study, seed) for seed, name in enumerate(("north", "harbour"))}
    first = next(path for path in sorted(sites["north"].rglob("*.dcm")))
    image = first.parent if taken.study.kind == "segmentation" else first
    # before any training: the study's network sees and says what the bundle's own pipeline does
    before = by_the_bundle(zoo, image, taken.study.preprocessing.size)
    np.testing.assert_allclose(outputs(taken.study, taken.weights, image), before, atol=5e-3)

    options = [item for name, folder in sites.items() for item in ("--site", f"{name}={folder}")]
    weights = ("--weights", tmp_path / "study.safetensors", "--threads", 1)
    done(simulate, tmp_path / "study.yaml", "--out", tmp_path / "run", *weights, *options)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["study"]["state"] == "completed"
    digest = report["study"]["digest"]
    done(hub, "save-version", tmp_path / "run" / "hub", digest, 1, tmp_path / "saved")
    out = tmp_path / "out"
    done(bundle, "export", out, "--from", tmp_path / "saved", "--hub-key", report["hub_key"], "--license", "CC0-1.0")
    version = saved_version(tmp_path / "saved", report["hub_key"])
    assert version.weights != taken.weights

    copied = out / "images" / "series" / image.name
    copied.parent.mkdir(parents=True)
    for path in sorted(image.iterdir()) if image.is_dir() else [image]:
        (copied.parent / path.name).write_bytes(path.read_bytes())
    names = ("--meta_file", "configs/metadata.json")
    monai_bundle(out, "verify_metadata", *names, "--filepath", "configs/metadata_schema.json")
    monai_bundle(out, "run", "--config_file", "configs/inference.json", *names)
    with (out / "eval" / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    expected = outputs(version.study, version.weights, image)
    if version.study.kind == "segmentation":
        np.testing.assert_array_equal(np.load(out / "eval" / row["mask"]), expected.argmax(0))
    else:
        (logit,) = expected
        assert float(row["pneumonia"]) == pytest.approx(1 / (1 + np.exp(-float(logit))), abs=1e-6)


@pytest.mark.parametrize("write", WRITERS)
def test_expressions_of_a_bundle_are_refused_unless_the_policy_allows_its_digest(
    tmp_path: Path, write: Callable[..., ZooBundle]
) -> None:
    zoo = write(tmp_path / "zoo", expressions=True)
    terms = {**TERMS, **zoo.terms}
    with pytest.raises(BundleError, match=r"`\$` expression, which is Python"):
        take_in(zoo.folder, terms)
    plain = take_in(write(tmp_path / "plain").folder, terms)
    with pytest.raises(BundleError, match="allowed_bundles"):
        take_in(zoo.folder, terms, allowed=[plain.bundle_digest])
    allowed = take_in(zoo.folder, terms, allowed=[open_bundle(zoo.folder).digest()])
    assert allowed.study == plain.study
    assert allowed.weights == plain.weights
