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
from site_node.training.stepwise import prepared_volume
from site_node.training.transforms import Picture, preparation
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
        self.terms, self.volumes = study.preprocessing, takes_volumes(study)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the path or paths by the tensor, and keep where they lie."""
        image = item["image"]
        prepared = self._volume([Path(path) for path in image]) if self.volumes else self._picture(Path(image))
        rounded = np.asarray(prepared, np.float16).astype(np.float32)
        return {"file": str(image), **item, "image": torch.from_numpy(rounded)}

    def _volume(self, paths: list[Path]) -> Picture:
        if self.terms.steps:
            return prepared_volume(self.terms, paths)
        return preparation(self.terms)(read_volume_picture(paths, max(self.terms.size)))

    def _picture(self, path: Path) -> Picture:
        return preparation(self.terms)(read_pixels(path))
