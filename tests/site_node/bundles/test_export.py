"""A version as a MONAI Bundle: MONAI itself verifies and runs it, and its scores are those of our evaluation."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from safetensors.numpy import load_file

from protocol.signing import SigningKey
from protocol.study import StudySpec, parse_study
from protocol.tensors import decode_weights
from site_node.bundles import export, inference_config, other_formats, portable
from site_node.bundles.export import ExportReport, export_bundle
from site_node.bundles.expressions import refusals_of
from site_node.bundles.predictions import activation_of, columns_of, outputs_of
from site_node.bundles.released import released_version, saved_version
from site_node.dicom.pixels import read_pixels
from site_node.errors import BundleError
from site_node.training.networks import build_network, load_into
from site_node.training.transforms import preparation
from site_node.training.volume_picture import read_volume_picture
from tests.fakes.dicom import make_dataset, make_hospital, save
from tests.fakes.series import body, positions_of, saved, series_of
from tests.site_node.bundles.examples import HUB_KEY, version_of, version_view
from tests.site_node.training.examples import make_study
from tests.site_node.training.segmentation_examples import make_segmentation


def monai_bundle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m monai.bundle` in a bundle, with nothing of this repository in its reach but what is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def exported(study: StudySpec, out: Path) -> ExportReport:
    return export_bundle(version_of(study), out, license_name="CC-BY-4.0")


def our_score(study: StudySpec, path: Path) -> float:
    network = build_network(study)
    load_into(network, decode_weights(version_of(study).weights))
    picture = np.asarray(preparation(study.preprocessing)(read_pixels(path)), np.float16).astype(np.float32)
    with torch.inference_mode():
        return float(torch.sigmoid(network.eval()(torch.from_numpy(picture)[None])).double())


def test_monai_verifies_and_runs_it_and_its_scores_are_ours(tmp_path: Path) -> None:
    study, bundle = make_study(size=(24, 24)), tmp_path / "bundle"
    exported(study, bundle)
    images = make_hospital(bundle / "images", patients=2).folder
    odd = np.arange(40 * 24, dtype=np.uint16).reshape(40, 24) % 997
    save(make_dataset(odd, "P8", PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-900),
         images / "inverted.dcm")  # fmt: skip
    save(make_dataset(np.dstack([odd % 251] * 3).astype(np.uint8), "P9"), images / "colour.dcm")
    (images / "labels.csv").unlink()
    names = ["--meta_file", "configs/metadata.json"]
    verified = monai_bundle(bundle, "verify_metadata", *names, "--filepath", "configs/metadata_schema.json")
    assert verified.returncode == 0, verified.stderr
    shapes = monai_bundle(
        bundle, "verify_net_in_out", "--net_id", "network_def", *names, "--config_file", "configs/inference.json"
    )
    assert shapes.returncode == 0, shapes.stderr
    ran = monai_bundle(bundle, "run", "--config_file", "configs/inference.json", *names)
    assert ran.returncode == 0, ran.stderr
    with (bundle / "eval" / "scores.csv").open(newline="") as file:
        scores = {row["file"]: float(row["yes"]) for row in csv.DictReader(file)}
    assert len(scores) == len(list(images.rglob("*.dcm"))) >= 4
    for name, score in scores.items():
        assert score == pytest.approx(our_score(study, bundle / name), abs=1e-6)


def test_a_study_of_volumes_runs_with_an_installed_wardround_and_gives_our_scores(tmp_path: Path) -> None:
    study, bundle = make_study(size=(12, 12, 12), arguments={"channels": [2], "strides": [2], "kernels": [3], "head": 1,
                                                             "groups": 1}), tmp_path / "bundle"  # fmt: skip
    assert exported(study, bundle).needs_wardround
    paths = saved(series_of(body(), positions_of(4)), bundle / "images" / "series")
    ran = monai_bundle(bundle, "run", "--config_file", "configs/inference.json")
    assert ran.returncode == 0, ran.stderr
    with (bundle / "eval" / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    network = build_network(study)
    load_into(network, version_of(study).tensors())
    picture = preparation(study.preprocessing)(read_volume_picture(paths, 12))
    with torch.inference_mode():
        rounded = torch.from_numpy(np.asarray(picture, np.float16).astype(np.float32))
        expected = float(torch.sigmoid(network.eval()(rounded[None])))
    assert float(row["yes"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("network", ["convnet", "densenet", "resnet"])
@pytest.mark.parametrize("normalisation", ["group", "layer", "batch", "none"])
def test_networks_are_described_to_monai_without_wardround(
    tmp_path: Path, network: str, normalisation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in ("as_onnx", "as_torchscript"):
        monkeypatch.setattr(export, writer, lambda *_: other_formats.Written(None, "not tried"))
    study = make_study(network, (32, 32), None, normalisation=normalisation)
    report = exported(study, tmp_path / "bundle")
    assert not report.needs_wardround
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert refusals_of(config, lambda _target: True) == []  # no expression, no macro, nothing that runs first


def test_onnx_and_torchscript_give_the_networks_outputs_for_any_batch(tmp_path: Path) -> None:
    import onnxruntime

    study = make_study("densenet", (16, 16))
    report = exported(study, tmp_path / "bundle")
    assert report.formats == {"ONNX": None, "TorchScript": None}
    network = build_network(study)
    load_into(network, version_of(study).tensors())
    images = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch calls its own format old
        expected = network.eval()(images).numpy()
        scripted = torch.jit.load(tmp_path / "bundle" / "models" / "model.ts")(images).numpy()  # type: ignore[no-untyped-call]
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "models" / "model.onnx")
    (found,) = session.run(["pred"], {"image": images.numpy()})
    np.testing.assert_allclose(scripted, expected, atol=1e-4)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("study", "needs"),
    [
        (make_segmentation("segresnet"), False),
        (make_segmentation("unet", (8, 8, 8), normalisation="batch"), True),  # of volumes
        (make_study("vit", (16, 16), arguments={"hidden": 8, "mlp": 8, "layers": 1, "heads": 2}), True),
    ],
    ids=["segresnet", "volumes", "vit"],
)
def test_it_says_whether_it_needs_an_installed_wardround(
    tmp_path: Path, study: StudySpec, needs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in ("as_onnx", "as_torchscript"):
        monkeypatch.setattr(export, writer, lambda *_: other_formats.Written(None, "not tried"))
    assert exported(study, tmp_path / "bundle").needs_wardround is needs
    described = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert ("wardround" in described["required_packages_version"]) is needs


class Moody(torch.nn.Module):
    """Gives other outputs once it is traced, as a network whose path depends on its image does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sum(1, keepdim=True) * (2.0 if float(images.sum()) > 0 else 1.0)


class Unheard(torch.nn.Module):
    """Leaves torch for numpy, which no format follows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array([[image.max()] for image in images.numpy()], np.float32))


def test_a_format_that_gives_other_outputs_is_refused_with_the_reason() -> None:
    written = other_formats.as_torchscript(Moody(), (1, 4, 4))
    assert written.content is None
    assert "other outputs" in str(written.refusal)
    onnx = other_formats.as_onnx(Unheard(), (1, 4, 4))
    assert onnx.content is None
    assert "ONNX" in str(onnx.refusal)


def test_the_weights_are_tensors_alone_in_both_files(tmp_path: Path) -> None:
    study, bundle = make_study("resnet", (32, 32), None, normalisation="batch"), tmp_path / "bundle"
    exported(study, bundle)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    tensors = load_file(bundle / "models" / "model.safetensors")
    assert {name for name in state if state[name].is_floating_point()} == set(tensors)
    assert all(np.array_equal(state[name].numpy(), tensors[name]) for name in tensors)


def test_the_model_card_says_where_it_comes_from_and_what_it_is_not_for(tmp_path: Path) -> None:
    study, bundle = make_study(), tmp_path / "bundle"
    released = version_of(study)
    export_bundle(released, bundle, license_name="CC-BY-4.0", license_text="Do as you like.")
    card = (bundle / "docs" / "README.md").read_text()
    for words in (study.digest, released.lineage["weights_digest"], "epsilon 3.25", "north", "0.8125", "Not a medical"):
        assert words in card
    described = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert described["license"] == "CC-BY-4.0"
    assert described["wardround"]["study"] == study.digest
    assert described["eval_metrics"] == {"auc": 0.8125, "patients": 40.0}
    assert (bundle / "LICENSE").read_text() == "Do as you like."
    assert parse_study(json.loads((bundle / "configs" / "study.json").read_text())) == study


def test_a_bundle_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        exported(make_study(), tmp_path / "taken")
    full = Path.write_bytes

    def disk_full(path: Path, data: bytes) -> int:
        if path.name == "LICENSE":
            raise OSError(28, "No space left on device")
        return full(path, data)

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(BundleError, match="No space left"):
        exported(make_study(), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_parts_that_do_not_belong_together_are_no_version(tmp_path: Path) -> None:
    study = make_study()
    released = version_of(study)
    document = study.model_dump(mode="json", by_alias=True)
    view = version_view(study, released.weights)
    with pytest.raises(BundleError, match="weights_digest"):
        released_version(document, view, released.weights[:-1] + b"x")
    with pytest.raises(BundleError, match="study_digest"):
        released_version(document | {"seed": 99}, view, released.weights)
    with pytest.raises(BundleError, match="lineage cannot be used"):
        released_version(document, view, released.weights, SigningKey.generate().public.text)
    assert released_version(document, view, released.weights, HUB_KEY.public.text).number == 3
    with pytest.raises(BundleError, match="does not hold"):
        saved_version(tmp_path)


@pytest.mark.parametrize(
    "terms", [{"intensity": "percentile"}, {"intensity": "minmax"}, {"intensity": "window", "window": [100, 700]}]
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_bundles_script_prepares_as_training_does(tmp_path: Path, terms: dict[str, Any], photometric: str) -> None:
    document = make_study(size=(16, 16)).model_dump(mode="json", by_alias=True)
    document["preprocessing"] |= terms
    study = parse_study(document)
    pixels = np.random.default_rng(1).integers(0, 900, (30, 21)).astype(np.int16)
    for number, picture in enumerate((pixels, np.full_like(pixels, 7), pixels[:8, :8])):
        path = tmp_path / f"{number}.dcm"
        save(make_dataset(picture, PhotometricInterpretation=photometric, RescaleSlope=2, RescaleIntercept=-50), path)
        stated = inference_config.preprocessing(study)[1]
        prepare = portable.PrepareGrey(**{key: value for key, value in stated.items() if key != "_target_"})
        found = prepare(portable.ReadGrey()({"image": str(path)}))["image"].numpy()
        expected = np.asarray(preparation(study.preprocessing)(read_pixels(path)), np.float16).astype(np.float32)
        np.testing.assert_array_equal(found, expected)


def test_several_frames_are_refused_by_the_bundles_script(tmp_path: Path) -> None:
    frames = make_dataset(np.zeros((4, 4), np.uint8), NumberOfFrames=2)
    frames.PixelData = bytes(32)
    with pytest.raises(ValueError, match="several frames"):
        portable.ReadGrey()({"image": str(save(frames, tmp_path / "two.dcm"))})


def test_a_segmentation_writes_masks(tmp_path: Path) -> None:
    study, bundle = make_segmentation(), tmp_path / "bundle"
    assert not exported(study, bundle).needs_wardround
    images = make_hospital(bundle / "images", patients=1).folder
    (images / "labels.csv").unlink()
    ran = monai_bundle(bundle, "run", "--config_file", "configs/inference.json")
    assert ran.returncode == 0, ran.stderr
    network = build_network(study)
    load_into(network, version_of(study).tensors())
    with (bundle / "eval" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        picture = preparation(study.preprocessing)(read_pixels(bundle / row["file"]))
        rounded = torch.from_numpy(np.asarray(picture, np.float16).astype(np.float32))
        with torch.inference_mode():
            expected = network.eval()(rounded[None]).argmax(1)[0].numpy()
        np.testing.assert_array_equal(np.load(bundle / "eval" / row["mask"]), expected)


def test_a_version_of_a_table_scores_rows_as_at_the_hospital(tmp_path: Path) -> None:
    features = [{"column": "age", "mean": 50.0, "deviation": 10.0}, {"column": "dose", "missing": 3.0}]
    study = parse_study(
        {"name": "rows", "kind": "tabular", "table": {"features": features}, "label": {"classes": ["no", "yes"]},
         "network": {"name": "mlp"}, "rounds": 1, "privacy": {"epsilon": None}}
    )  # fmt: skip
    bundle = tmp_path / "bundle"
    assert not exported(study, bundle).needs_wardround
    (bundle / "images").mkdir()
    (bundle / "images" / "rows.csv").write_text("age,dose\n70,1\n50,NA\n")
    ran = monai_bundle(bundle, "run", "--config_file", "configs/inference.json")
    assert ran.returncode == 0, ran.stderr
    network = build_network(study)
    load_into(network, version_of(study).tensors())
    with torch.inference_mode():
        expected = torch.sigmoid(network.eval()(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))).flatten().tolist()
    with (bundle / "eval" / "scores.csv").open(newline="") as file:
        assert [float(row["yes"]) for row in csv.DictReader(file)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("outcome", "changes"),
    [
        ("multi-class", {"label": {"classes": ["a", "b", "c"]}}),
        ("multi-label", {"label": {"classes": ["a", "b", "c"], "several": True}}),
        ("regression", {"kind": "regression", "label": {"column": "age"},
                        "regression": {"low": 20.0, "high": 80.0}}),
    ],
)  # fmt: skip
def test_what_a_network_says_becomes_what_a_reader_wants(outcome: str, changes: dict[str, Any]) -> None:
    study = parse_study(make_study().model_dump(mode="json", by_alias=True) | changes)
    assert study.outcome == outcome
    transforms = (
        ConfigParser({"post": activation_of(study)}).get_parsed_content("post")
        if outcome != "regression"
        else [portable.InUnits(20.0, 80.0)]
    )
    outputs = torch.tensor([0.5]) if outcome == "regression" else torch.tensor([0.0, 1.0, -1.0])
    (transform,) = transforms
    values = transform({"pred": outputs})["pred"]
    expected = {
        "multi-class": torch.softmax(outputs, 0),
        "multi-label": torch.sigmoid(outputs),
        "regression": torch.tensor([50.0]),
    }
    torch.testing.assert_close(torch.as_tensor(values), expected[outcome])
    assert len(columns_of(study)) == len(outputs) == outputs_of(study)
