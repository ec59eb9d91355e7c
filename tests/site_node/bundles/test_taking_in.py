"""A bundle becomes a study, and nothing of it runs: what would run, escape or swell is refused with a reason."""

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from protocol.digest import digest_of_bytes
from protocol.errors import SpecificationError
from protocol.tensors import decode_weights
from site_node.bundles import archive, export, given_weights, other_formats
from site_node.bundles.archive import open_bundle
from site_node.bundles.cli import app
from site_node.bundles.export import export_bundle
from site_node.bundles.known_networks import differs_in_padding, known_network
from site_node.bundles.study_file import write_study
from site_node.bundles.taking_in import take_in
from site_node.errors import BundleError
from site_node.training.networks import build_network, load_into
from tests.site_node.bundles.examples import DENSENET, foreign_bundle, foreign_network, version_of, write_json
from tests.site_node.training.examples import make_study

TERMS: dict[str, Any] = {
    "rounds": 4,
    "cohort": {"modality": ["DX"]},
    "participants": {"training_patients": 100},
    "privacy": {"epsilon": 8.0, "delta": 1e-4},
}


SWINUNETR: dict[str, Any] = {
    "_target_": "SwinUNETR",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "feature_size": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 4,
    "use_checkpoint": True,
}
VIT: dict[str, Any] = {
    "_target_": "monai.networks.nets.ViT",
    "spatial_dims": 2,
    "in_channels": 1,
    "img_size": [32, 32],
    "patch_size": [8, 8],
    "hidden_size": 16,
    "mlp_dim": 24,
    "num_layers": 2,
    "num_heads": 4,
    "classification": True,
    "num_classes": 2,
    "post_activation": None,
    "dropout_rate": 0.1,
}
EFFICIENTNET: dict[str, Any] = {
    "_target_": "EfficientNetBN",
    "model_name": "efficientnet-b0",
    "pretrained": False,
    "spatial_dims": 2,
    "in_channels": 1,
    "num_classes": 2,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return foreign_bundle(tmp_path / "bundle")


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for writer in ("as_onnx", "as_torchscript"):
        monkeypatch.setattr(export, writer, lambda *_: other_formats.Written(None, "not tried"))
    export_bundle(version_of(make_study()), tmp_path / "ours")
    return tmp_path / "ours"


def taken(path: Path, **more: Any) -> Any:
    return take_in(path, TERMS, own_preprocessing=True, **more)


def zipped(folder: Path, under: str = "") -> Path:
    out = folder.with_suffix(".zip")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, under + path.relative_to(folder).as_posix())
    return out


@pytest.mark.parametrize("pack", [lambda path: path, zipped, lambda path: zipped(path, "ChestNodules/")])
def test_a_bundle_becomes_a_study_that_starts_from_its_weights(bundle: Path, pack: Callable[[Path], Path]) -> None:
    found = taken(pack(bundle))
    study = found.study
    assert (study.network.name, study.network.normalisation) == ("densenet", "group")
    assert study.preprocessing.size == [32, 32]
    assert study.label.classes == ["no nodule", "nodule"]
    assert study.start.weights == digest_of_bytes(found.weights)
    network = build_network(study)
    load_into(network, decode_weights(found.weights))
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), foreign_network()(images))


def test_the_study_s_folder_is_made(bundle: Path, tmp_path: Path) -> None:
    found = taken(bundle)
    weights = write_study(found, tmp_path / "new" / "folder" / "study.yaml")
    assert weights.read_bytes() == found.weights
    assert (tmp_path / "new" / "folder" / "study.yaml").is_file()


def test_what_a_person_states_comes_first_and_the_network_is_the_bundles(bundle: Path) -> None:
    terms = {**TERMS, "name": "mine", "label": {"classes": ["clear", "nodule"]}, "network": {"name": "resnet"}}
    study = take_in(bundle, terms, own_preprocessing=True).study
    assert (study.name, study.label.classes, study.network.name) == ("mine", ["clear", "nodule"], "densenet")


def test_a_version_of_ours_comes_back_as_its_study(ours: Path) -> None:
    found = take_in(ours)
    assert found.weights == (ours / "models" / "model.safetensors").read_bytes()
    assert found.study.model_copy(update={"start": make_study().start}) == make_study()
    assert take_in(zipped(ours)).study == found.study


def test_a_bundle_that_was_run_is_the_same_bundle(ours: Path) -> None:
    before = open_bundle(ours).digest()
    (ours / "scripts" / "__pycache__").mkdir()
    (ours / "scripts" / "__pycache__" / "portable.cpython-311.pyc").write_bytes(b"compiled")
    assert open_bundle(ours).digest() == before == take_in(ours).bundle_digest


def test_the_same_bundle_has_the_same_digest_however_it_is_packed(bundle: Path) -> None:
    before = open_bundle(bundle).digest()
    assert before == open_bundle(zipped(bundle)).digest()
    (bundle / "configs" / "metadata.json").write_text("{}")
    assert open_bundle(bundle).digest() != before


def test_a_version_whose_config_was_changed_is_refused(ours: Path) -> None:
    config = json.loads((ours / "configs" / "inference.json").read_text())
    config["preprocessing"]["transforms"][1]["size"] = [99, 99]
    write_json(ours / "configs" / "inference.json", config)
    with pytest.raises(BundleError, match=r"not what this release writes"):
        take_in(ours)


def test_a_script_that_is_not_ours_is_code(ours: Path) -> None:
    script = ours / "scripts" / "portable.py"
    script.write_bytes(script.read_bytes() + b"\nimport os\n")
    with pytest.raises(BundleError, match=r"scripts/portable.py: code"):
        take_in(ours)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"imports": ["$import os"]}, "imports"),
        ({"device": "$torch.device('cpu')"}, r"`\$` expression"),
        ({"network_def": {**DENSENET, "out_channels": "$__import__('os').system('true')"}}, r"`\$` expression"),
        ({"network_def": {"_target_": "os.system", "command": "true"}}, "'os.system' is not among"),
        ({"network_def": {"_target_": "$os.system"}}, "a target that is computed"),
        ({"network_def": {"_target_": "scripts.mine.Network"}}, "'scripts.mine.Network' is not among"),
        ({"network_def": {**DENSENET, "_requires_": ["@device"]}}, "_requires_"),
        ({"network_def": {**DENSENET, "_mode_": "debug"}}, "_mode_"),
        ({"network_def": {**DENSENET, "init_features": "%../../secret.json::x"}}, "`%` macro"),
        ({"preprocessing": "%other.json"}, "`%` macro"),
        ({"handlers": [{"_target_": "builtins.eval", "source": "1"}]}, "'builtins.eval' is not among"),
        ({"initialize": ["$print(1)"]}, "initialize"),
    ],
)
def test_what_would_run_is_refused_with_where_it_stands(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        taken(foreign_bundle(tmp_path / "b", **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network_def": "@nowhere"}, "leads to nothing"),
        ({"network_def": "@a", "a": "@b", "b": "@a"}, "in a circle"),
        ({"network_def": {**DENSENET, "init_features": "@##width"}}, "leads to nothing"),
        ({"network_def": {**DENSENET, "growth": 3}}, "growth say nothing"),
        ({"network_def": {**DENSENET, "in_channels": 3}}, "in_channels has a value"),
        ({"network_def": {**DENSENET, "norm": "layer"}}, "normalisation"),
        ({"network_def": {**DENSENET, "dropout_prob": 1.5}}, "dropout_prob is no rate"),
        ({"network_def": {**EFFICIENTNET, "in_channels": 3}}, "in_channels has a value"),
        ({"network_def": {**EFFICIENTNET, "model_name": "efficientnet-l2"}}, "model_name has a value"),
        ({"network_def": {**VIT, "post_activation": "Tanh"}}, "post_activation has a value"),
        ({"network_def": {**VIT, "classification": False}}, "classification has a value"),
        ({"network_def": {**SWINUNETR, "use_v2": True}}, "use_v2 has a value"),
        ({"network_def": {**DENSENET, "init_features": 8}}, "another network's"),
        ({"network_def": {"_target_": "monai.networks.nets.GraphNet"}}, "not among"),
        ({"network_def": None}, "no network_def"),
    ],
)
def test_a_network_that_no_study_can_have_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        taken(foreign_bundle(tmp_path / "b", **change))


@pytest.mark.parametrize(
    "definition",
    [
        {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2],
         "act": "relu", "norm": "batch", "num_res_units": 1},
        {"_target_": "monai.networks.nets.SegResNet", "spatial_dims": 2, "init_filters": 8, "in_channels": 1,
         "blocks_down": [1, 1], "blocks_up": [1]},
        {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
         "strides": [2]},
        {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2],
         "norm": ["instance", {"affine": True}], "dropout": 0.1},
        SWINUNETR,
    ],
)  # fmt: skip
def test_a_network_of_masks_becomes_a_segmentation_study(tmp_path: Path, definition: dict[str, Any]) -> None:
    bundle = foreign_bundle(tmp_path / "b", network_def=definition)
    own = ConfigParser({"network_def": definition}).get_parsed_content("network_def").eval()
    torch.save(own.state_dict(), bundle / "models" / "model.pt")
    terms = {**TERMS, "privacy": {"epsilon": None}, "participants": {}, "label": {"classes": ["background", "tumour"]}}
    terms["preprocessing"] = {"size": [64, 64]}
    found = take_in(bundle, terms, own_preprocessing=True)
    assert found.study.kind == "segmentation"
    network = build_network(found.study)
    load_into(network, decode_weights(found.weights))
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), own(images))


@pytest.mark.parametrize(
    "change", [{"act": "elu"}, {"norm": "layer"}, {"up_kernel_size": 5}, {"dropout": "0.5"}, {"kernel_size": [3, 5]}]
)
def test_a_unet_that_no_study_can_have_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    unet = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
            "strides": [2], "act": "relu", "norm": "batch", **change}  # fmt: skip
    with pytest.raises(BundleError, match=r"UNet: |differs between the axes"):
        taken(foreign_bundle(tmp_path / "b", network_def=unet))


def with_its_weights(root: Path, definition: dict[str, Any]) -> tuple[Path, torch.nn.Module]:
    """Write a bundle of a network, and return both; its weights are those that MONAI made it with."""
    bundle = foreign_bundle(root, network_def=definition)
    own = ConfigParser({"network_def": definition}).get_parsed_content("network_def").eval()
    torch.save(own.state_dict(), bundle / "models" / "model.pt")
    return bundle, own


@pytest.mark.parametrize(
    ("definition", "name", "difference"),
    [
        (VIT, "vit", "without the bundle's dropout (dropout_rate 0.1)"),
        (EFFICIENTNET, "efficientnet", "without the bundle's dropout (the model's own rates)"),
        ({**DENSENET, "out_channels": 2, "dropout_prob": 0.2}, "densenet", "(dropout_prob 0.2)"),
        ({**DENSENET, "out_channels": 2, "norm": "instance"}, "densenet", None),
    ],
)
def test_a_network_of_classes_says_in_a_study_what_it_says_in_its_bundle(
    tmp_path: Path, definition: dict[str, Any], name: str, difference: str | None
) -> None:
    bundle, own = with_its_weights(tmp_path / "b", definition)
    terms = {**TERMS, "privacy": {"epsilon": None}, "participants": {}, "label": {"classes": ["no", "yes"]}}
    found = take_in(bundle, terms, own_preprocessing=True)
    assert found.study.network.name == name
    assert [difference in told for told in found.differences] == [True] if difference else not found.differences
    network = build_network(found.study)
    load_into(network, decode_weights(found.weights))
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        said = own(images)
        logits = said[0] if isinstance(said, tuple) else said
        torch.testing.assert_close(network.eval()(images)[:, 0], logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("edge", "differs"), [(32, False), (224, False), (48, True), (36, True)])
def test_where_the_studys_images_are_padded_otherwise_that_is_said(edge: int, differs: bool) -> None:
    network = known_network(EFFICIENTNET)
    assert network.padded_for == 224  # halved five times, 224 is even before each
    assert differs_in_padding(network, [edge, edge]) is differs


def test_a_refusal_tells_the_digest_that_a_policy_can_allow(tmp_path: Path) -> None:
    bundle = foreign_bundle(tmp_path / "b", imports=["$import os"])
    words = ["import", str(bundle), "--out", str(tmp_path / "study.yaml")]
    told = CliRunner().invoke(app, words)
    digest = open_bundle(bundle).digest()
    assert (told.exit_code, digest in told.output) == (1, True)
    told = CliRunner().invoke(app, [*words, "--json"])
    assert (told.exit_code, json.loads(told.stdout)["bundle"]) == (1, digest)
    policy, terms = tmp_path / "policy.yaml", tmp_path / "terms.yaml"
    policy.write_text(f"allowed_bundles: ['{digest}']\n")
    terms.write_text(json.dumps(TERMS))
    told = CliRunner().invoke(
        app, [*words, "--json", "--own-preprocessing", "--terms", str(terms), "--policy", str(policy)]
    )
    assert (told.exit_code, json.loads(told.stdout)["differences"]) == (0, [])


def test_references_within_the_config_are_followed(tmp_path: Path) -> None:
    bundle = foreign_bundle(tmp_path / "b", network_def={**DENSENET, "init_features": "@sizes#0"}, sizes=[4])
    assert taken(bundle).study.network.arguments["init_features"] == 4


def pipeline(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


LOAD: dict[str, Any] = {"_target_": "LoadImaged", "keys": ["image", "label"]}
SCALE: dict[str, Any] = {"_target_": "monai.transforms.ScaleIntensityD", "keys": ["image"]}


def test_a_bundles_own_preprocessing_becomes_a_studys_steps(tmp_path: Path) -> None:
    own = pipeline(
        LOAD,
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "margin": 2},
        SCALE,
        {"_target_": "Resized", "keys": ["image", "label"], "spatial_size": 32, "mode": ["bilinear", "nearest"]},
        {"_target_": "Lambdad", "keys": "label", "func": "x"},
    )
    bundle = foreign_bundle(tmp_path / "b", preprocessing=own)
    with pytest.raises(BundleError, match="'Lambdad' is not among"):
        take_in(bundle, TERMS)
    own["transforms"].pop()
    bundle = foreign_bundle(tmp_path / "c", preprocessing=own)
    found = take_in(bundle, {**TERMS, "preprocessing": {"augmentation": "none", "size": [99, 99]}}).study.preprocessing
    assert found.model_dump(mode="json", exclude_defaults=True) == {
        "size": [32, 32],
        "augmentation": "none",
        "steps": [
            {"transform": "CropForeground", "margin": 2},
            {"transform": "ScaleIntensity"},
            {"transform": "Resize", "spatial_size": [32, 32], "mode": "linear"},
        ],
    }


@pytest.mark.parametrize(("stated", "size"), [({}, [32, 32]), ({"preprocessing": {"size": [48, 40]}}, [48, 40])])
def test_what_leaves_the_size_open_is_padded_or_cut_to_the_stated_one(
    tmp_path: Path, stated: dict[str, Any], size: list[int]
) -> None:
    bundle = foreign_bundle(tmp_path / "b", preprocessing=pipeline(LOAD, SCALE))
    found = take_in(bundle, {**TERMS, **stated}).study.preprocessing
    assert found.size == size
    assert found.steps[-1].model_dump() == {"transform": "ResizeWithPadOrCrop", "spatial_size": size}


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"_target_": "RandFlipd", "keys": "image"}, "RandFlip: draws at random"),
        ({"_target_": "RepeatChanneld", "keys": "image", "repeats": 3}, "RepeatChannel: makes several channels"),
        ({"_target_": "DivisiblePadd", "keys": "image", "k": 16}, "use ResizeWithPadOrCropd"),
        ({"_target_": "Resized", "keys": "image", "spatial_size": 32, "size_mode": "longest"}, "size_mode has a value"),
        ({"_target_": "Resized", "keys": "image", "spatial_size": [32, -1]}, "leaves a side open"),
        ({"_target_": "Resized", "keys": "image", "spatial_size": [32, 32], "mode": "bicubic"}, "Known: area"),
        ({"_target_": "SpatialPadd", "keys": "image", "spatial_size": [32, 32], "mode": "edge"}, "SpatialPad: mode"),
        ({"_target_": "CropForegroundd", "keys": "image", "source_key": "label"}, "source_key has a value"),
        ({"_target_": "Spacingd", "keys": "image", "pixdim": 1.0, "min_pixdim": 0.5}, "has no min_pixdim"),
        ({"_target_": "LoadImaged", "keys": "image", "reader": "NumpyReader"}, "LoadImage: reader has a value"),
        ({"_target_": "ScaleIntensityd", "keys": "image", "factor": 0.1}, "factor has a value"),
    ],
)
def test_a_transform_that_a_study_cannot_have_is_refused_by_name_with_what_to_do(
    tmp_path: Path, transform: dict[str, Any], words: str
) -> None:
    bundle = foreign_bundle(tmp_path / "b", preprocessing=pipeline(LOAD, SCALE, transform))
    with pytest.raises(BundleError, match=words) as caught:
        take_in(bundle, TERMS)
    assert "--own-preprocessing" in caught.value.remedy


def test_values_that_no_transform_scales_are_refused_as_in_any_study(bundle: Path) -> None:
    with pytest.raises(SpecificationError, match="none of them scales the values"):
        take_in(bundle, TERMS)


def test_two_outputs_of_a_softmax_become_the_one_of_a_study_of_two_classes(tmp_path: Path) -> None:
    two = {**DENSENET, "out_channels": 2}
    bundle = foreign_bundle(tmp_path / "b", network_def=two)
    own = ConfigParser({"network_def": two}).get_parsed_content("network_def").eval()
    torch.save(own.state_dict(), bundle / "models" / "model.pt")
    found = take_in(bundle, {**TERMS, "label": {"classes": ["no", "yes"]}}, own_preprocessing=True)
    network = build_network(found.study)
    load_into(network, decode_weights(found.weights))
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(torch.sigmoid(network.eval()(images))[:, 0], torch.softmax(own(images), 1)[:, 1])


def test_batch_normalisation_with_privacy_is_refused_as_in_any_study(tmp_path: Path) -> None:
    bundle = foreign_bundle(tmp_path / "b", network_def={**DENSENET, "norm": "batch"})
    with pytest.raises(SpecificationError, match="mixes the patients of a batch"):
        taken(bundle)


def test_a_study_without_its_missing_terms_is_no_study(bundle: Path) -> None:
    with pytest.raises(SpecificationError, match="privacy"):
        take_in(bundle, own_preprocessing=True)


def test_for_a_digest_that_the_policy_allows_what_is_not_needed_is_passed_over_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    expression = f"$open({str(marker)!r}, 'w')"
    bundle = foreign_bundle(tmp_path / "b", imports=[expression], evaluator={"_target_": "os.remove", "path": "x"})
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text(expression[1:])
    with pytest.raises(BundleError, match="what would run"):
        taken(bundle)
    assert taken(bundle, allowed=[open_bundle(bundle).digest()]).study.network.name == "densenet"
    needed = foreign_bundle(tmp_path / "c", network_def={**DENSENET, "out_channels": expression})
    with pytest.raises(BundleError, match="would have to be run"):
        taken(needed, allowed=[open_bundle(needed).digest()])
    assert not marker.exists()


class Opener:
    """Runs when it is unpickled by a reader that lets it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_weights_that_would_run_are_refused_and_do_not_run(bundle: Path, tmp_path: Path) -> None:
    torch.save({"model": Opener(str(tmp_path / "it-ran"))}, bundle / "models" / "model.pt")
    with pytest.raises(BundleError, match="more than tensors"):
        taken(bundle)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: {"a": 1}, "no state dict"),
        (lambda: {name: tensor * np.nan for name, tensor in foreign_network().state_dict().items()}, "not all finite"),
        (lambda: {"x": torch.zeros(2, dtype=torch.int64)}, "no floating-point"),
    ],
)
def test_weights_that_are_no_networks_are_refused(bundle: Path, content: Callable[[], Any], words: str) -> None:
    torch.save(content(), bundle / "models" / "model.pt")
    with pytest.raises(BundleError, match=words):
        taken(bundle)


def test_damaged_weights_are_refused(bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"\x80\x02no zip")
    with pytest.raises(BundleError, match="old format"):
        taken(bundle)
    (bundle / "models" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="is damaged"):
        taken(bundle)


def test_weights_that_inflate_are_refused_before_they_are_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_weights, "MOST_WEIGHTS_BYTES", 1 << 16)
    with zipfile.ZipFile(bundle / "models" / "model.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(BundleError, match="would inflate"):
        taken(bundle)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../evil", "C:\\evil", "x\\..\\y", "a\nb"])
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("configs/metadata.json", "{}")
        packed.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        open_bundle(tmp_path / "b.zip")


def test_links_are_refused_in_a_zip_and_in_a_folder(tmp_path: Path, bundle: Path) -> None:
    info = zipfile.ZipInfo("models/model.pt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(tmp_path / "b.zip")
    (bundle / "models" / "other").symlink_to("/etc")
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(bundle)


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("configs/metadata.json", bytes(16 << 20))
    with pytest.raises(BundleError, match="inflate more than"):
        open_bundle(tmp_path / "b.zip")


def test_a_member_that_hides_its_size_is_refused(bundle: Path) -> None:
    path = zipped(bundle)
    data = bytearray(path.read_bytes())
    name = b"configs/metadata.json"
    central = data.rindex(name) - 46
    data[central + 24 : central + 28] = (3).to_bytes(4, "little")  # the central directory's uncompressed size
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot be unpacked|cannot be read|has not the size"):
        taken(path)


def test_files_and_bytes_are_bounded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    with pytest.raises(BundleError, match="more than 2 files"):
        open_bundle(bundle)
    monkeypatch.undo()
    (bundle / "configs" / "inference.json").write_text(json.dumps({"words": "x" * (2 << 20)}))
    with pytest.raises(BundleError, match="at most"):
        taken(bundle)


def test_configs_that_swell_or_nest_are_refused(bundle: Path) -> None:
    config = bundle / "configs" / "inference.json"
    config.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(BundleError, match="cannot be read"):
        taken(bundle)
    config.unlink()
    laughs = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    (bundle / "configs" / "inference.yaml").write_text(laughs)
    with pytest.raises(BundleError, match="cannot be read"):
        taken(bundle)


def test_a_config_in_plain_yaml_is_read(bundle: Path) -> None:
    import yaml

    config = json.loads((bundle / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    assert taken(bundle).study.network.name == "densenet"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a folder nor a zip"):
        open_bundle(tmp_path / "nothing")
    (tmp_path / "empty.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(BundleError, match=r"holds no configs/metadata\.json"):
        taken(tmp_path / "empty.zip")
