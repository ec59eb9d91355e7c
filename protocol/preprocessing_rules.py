"""What a study may not say of how images are prepared; refused with reason and remedy. Pure."""

from protocol.study import StudySpec


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
    return found
