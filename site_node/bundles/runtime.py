"""What a bundle asks of an installed Wardround where MONAI alone has no equal: volumes, and networks of our own.

Named in `configs/inference.json` as `site_node.bundles.runtime...`; such a bundle says that it needs Wardround.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from protocol.digest import parse_json
from protocol.study import StudySpec, parse_study
from site_node.cohort.volumes import takes_volumes
from site_node.dicom.pixels import read_pixels
from site_node.training.networks import build_network
from site_node.training.transforms import preparation
from site_node.training.volume_picture import read_volume_picture


def study_in(file: str) -> StudySpec:
    """Read the study of a bundle: its `configs/study.json`."""
    return parse_study(parse_json(Path(file).read_bytes()))


def network_of_study(file: str) -> nn.Module:
    """Build the network of a bundle's study, as every hospital of it did."""
    return build_network(study_in(file))


def series_in(folder: str) -> list[dict[str, Any]]:
    """Return each folder below a folder that holds files, as one series: {"image": its files}."""
    parents = sorted({path.parent for path in Path(folder).rglob("*") if path.is_file() and path.name[0] != "."})
    return [
        {"file": str(parent), "image": sorted(path for path in parent.iterdir() if path.is_file())}
        for parent in parents
    ]


class ReadAndPrepare:
    """Read item["image"], a DICOM file, or the files of one series for a study of volumes, as training did.

    Shapes: result (channel, *size) float32, rounded to half precision as the pictures of training were.
    """

    def __init__(self, file: str) -> None:
        study = study_in(file)
        self.prepare, self.edge = preparation(study.preprocessing), max(study.preprocessing.size)
        self.volumes = takes_volumes(study)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the path or paths by the tensor, and keep where they lie."""
        image = item["image"]
        picture = read_volume_picture([Path(p) for p in image], self.edge) if self.volumes else read_pixels(Path(image))
        rounded = np.asarray(self.prepare(picture), np.float16).astype(np.float32)
        return {"file": str(image), **item, "image": torch.from_numpy(rounded)}
