"""What a study may not say of how images are prepared, step by step."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study

SCALE: dict[str, Any] = {"transform": "ScaleIntensity"}
RAS: dict[str, Any] = {"transform": "Orientation", "axcodes": "RAS"}


def sized(*size: int) -> dict[str, Any]:
    return {"transform": "ResizeWithPadOrCrop", "spatial_size": list(size)}


def study(steps: list[dict[str, Any]], size: tuple[int, ...] = (32, 32), **more: Any) -> StudySpec:
    return parse_study(
        {
            "name": "stepwise",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "densenet"},
            "preprocessing": {"size": list(size), "steps": steps, **more},
            "rounds": 1,
            "privacy": {"epsilon": None},
        }
    )


def test_steps_are_kept_in_their_order_and_travel_whole() -> None:
    found = study([SCALE, sized(32, 32)])
    document = found.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert [step["transform"] for step in document["preprocessing"]["steps"]] == [
        "ScaleIntensity",
        "ResizeWithPadOrCrop",
    ]
    assert parse_study(document) == found
    assert parse_study(found.model_dump(mode="json", by_alias=True)).digest == found.digest


@pytest.mark.parametrize(
    ("steps", "size", "more", "words"),
    [
        ([sized(32, 32)], (32, 32), {}, "none of them scales the values"),
        ([SCALE], (32, 32), {}, "do not end in preprocessing.size"),
        ([SCALE, sized(32, 16)], (32, 32), {}, "do not end in preprocessing.size"),
        ([SCALE, sized(32, 32), {"transform": "CropForeground"}], (32, 32), {}, "do not end in preprocessing.size"),
        ([SCALE, sized(32, 32)], (32, 32), {"intensity": "minmax"}, "silently ignored"),
        ([RAS, SCALE, sized(32, 32)], (32, 32), {}, "Orientation is of volumes"),
        ([SCALE, sized(32, 32, 32)], (32, 32, 32), {}, "Add it, for example with axcodes: RAS"),
        ([{**RAS, "axcodes": "RRS"}, SCALE, sized(32, 32, 32)], (32, 32, 32), {}, "one letter of each pair"),
        ([{"transform": "RandFlip"}], (32, 32), {}, "does not match any of the expected tags"),
        ([{**SCALE, "factor": 2.0}, sized(32, 32)], (32, 32), {}, "unknown key"),
        ([{"transform": "Spacing", "pixdim": [0, 1, 1]}], (32, 32, 32), {}, "greater than or equal to 0.05"),
        ([{"transform": "ScaleIntensityRange", "a_min": 5, "a_max": 5, "b_min": 0, "b_max": 1}, sized(32, 32)],
         (32, 32), {}, "is not below its upper one"),
        ([{"transform": "ScaleIntensityRangePercentiles", "lower": 99, "upper": 1, "b_min": 0, "b_max": 1},
          sized(32, 32)], (32, 32), {}, "is not below its upper one"),
        ([{**SCALE, "maxv": 1e5}, sized(32, 32)], (32, 32), {}, "less than or equal to 1000"),
        ([SCALE] * 21, (32, 32), {}, "at most 20 items"),
    ],
)  # fmt: skip
def test_steps_that_no_study_can_have_are_refused(
    steps: list[dict[str, Any]], size: tuple[int, ...], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecificationError, match=words):
        study(steps, size, **more)
