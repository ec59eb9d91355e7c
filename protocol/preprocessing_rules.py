"""What a study may not say of how images are prepared; refused with reason and remedy. Pure."""

from protocol.preprocessing_steps import (
    OF_VOLUMES,
    SCALINGS,
    SIZINGS,
    Orientation,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Step,
)
from protocol.study import StudySpec

AXES = ("RL", "AP", "SI")
VOLUME_DIMENSIONS = 3


def preprocessing_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of preprocessing that the study breaks."""
    terms, found = study.preprocessing, list[str]()
    if terms.intensity == "window":
        if len(terms.window) != 2 or terms.window[0] >= terms.window[1]:
            found.append(
                "preprocessing.window: intensity 'window' needs its two ends, the lower first. State them, of CT in HU."
            )
    elif terms.window:
        found.append(
            f"preprocessing.window: with intensity {terms.intensity!r} each image is scaled by itself. Leave it out, "
            "or set preprocessing.intensity: window."
        )
    return found + (_step_problems(study) if terms.steps else [])


def _step_problems(study: StudySpec) -> list[str]:
    terms = study.preprocessing
    found: list[str] = []
    if terms.intensity != "percentile" or terms.window:
        found.append(
            "preprocessing.intensity: with preprocessing.steps these say how values are scaled, and it would be "
            "silently ignored. Leave out intensity and window (and a preset that states them)."
        )
    if not any(isinstance(step, SCALINGS) for step in terms.steps):
        found.append(
            "preprocessing.steps: none of them scales the values, which would reach the network as they are stored. "
            "Add ScaleIntensity, ScaleIntensityRange, ScaleIntensityRangePercentiles or NormalizeIntensity."
        )
    if _last_size(terms.steps) != terms.size:
        found.append(
            "preprocessing.steps: they do not end in preprocessing.size, which each image of a study has. Let the last "
            "step that changes a size be Resize or ResizeWithPadOrCrop to it."
        )
    if any(_is_empty(step) for step in terms.steps):
        found.append("preprocessing.steps: the lower end of a range is not below its upper one. Exchange them.")
    return found + (_volume_problems(terms.steps) if len(terms.size) == VOLUME_DIMENSIONS else _flat(terms.steps))


def _is_empty(step: Step) -> bool:
    if isinstance(step, ScaleIntensityRange):
        return step.a_min >= step.a_max
    return isinstance(step, ScaleIntensityRangePercentiles) and step.lower >= step.upper


def _last_size(steps: list[Step]) -> list[int] | None:
    sizing = [step for step in steps if not isinstance(step, SCALINGS)]
    return sizing[-1].spatial_size if sizing and isinstance(sizing[-1], SIZINGS) else None


def _flat(steps: list[Step]) -> list[str]:
    return [
        f"preprocessing.steps: {step.transform} is of volumes, and preprocessing.size takes pictures. Leave it out, or "
        "give size three numbers."
        for step in steps
        if isinstance(step, OF_VOLUMES)
    ]


def _volume_problems(steps: list[Step]) -> list[str]:
    turns = [step.axcodes for step in steps if isinstance(step, Orientation)]
    if not turns:
        return [
            "preprocessing.steps: without Orientation a volume's axes go as its scanner wrote them, at each hospital "
            "another way. Add it, for example with axcodes: RAS."
        ]
    if any(sum(letter in axis for letter in turn) != 1 for turn in turns for axis in AXES):
        return ["preprocessing.steps: Orientation needs one letter of each pair R/L, A/P and S/I, such as RAS."]
    return []
