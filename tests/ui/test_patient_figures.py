"""The validation page of studies without scores: Dice and errors in the place of AUC, sensitivity and curves."""

from typing import Any

from ui import charts, patient_figures
from ui.views import Mean, Metrics, Study

FRONT, BACK = Mean(0.9, 0.85, 0.95, 0.91), Mean(0.7, 0.6, 0.8, 0.72)
POOLED = Metrics(
    figure="dice", mean=0.8, mean_low=0.72, mean_high=0.88, median=0.81, figures=[FRONT, BACK], patients=40
)


def study_of(**parts: Any) -> Study:
    known: dict[str, Any] = dict.fromkeys(Study.__dataclass_fields__)
    return Study(**{**known, "study": parts})


def test_the_score_is_the_mean_with_its_interval() -> None:
    assert (POOLED.score, POOLED.score_low, POOLED.score_high, POOLED.score_name) == (0.8, 0.72, 0.88, "Dice")
    assert Metrics(auc=0.9, auc_low=0.8).score_low == 0.8


def test_each_class_is_shown_by_its_name_and_the_background_is_not() -> None:
    study = study_of(label={"classes": ["background", "front", "back"]})
    tiles = patient_figures.tiles(study, POOLED)
    assert all(word in tiles for word in ("Dice", "0.800", "front", "0.900", "back", "0.700", "Median"))
    assert "background" not in tiles
    table = patient_figures.table(study, [("north", Metrics(figure="dice", patients=None))], POOLED, ["north"])
    assert all(word in table for word in ("front", "back", "0.720 to 0.880"))


def test_one_class_has_no_columns_of_its_own_and_an_error_has_its_unit() -> None:
    study = study_of(regression={"unit": "months"}, label={"classes": []})
    errors = Metrics(figure="absolute-error", mean=9.5, mean_low=8.0, mean_high=11.0, median=8.0, figures=[FRONT])
    tiles = patient_figures.tiles(study, errors)
    assert "Mean absolute error (months)" in tiles
    assert "front" not in tiles


def test_an_axis_of_errors_reaches_beyond_one() -> None:
    errors = Metrics(figure="absolute-error", mean=9.5, mean_low=8.0, mean_high=11.0, patients=30)
    figure = charts.forest(errors, [("north", errors)], ["north"])
    assert figure.layout.xaxis.title.text == "Mean absolute error (95 % interval)"
    low, high = figure.layout.xaxis.range
    assert (low, high > 11.0) == (0.0, True)
    assert tuple(charts.forest(POOLED, [], []).layout.xaxis.range) == (0.48, 1.0)


def test_a_hospital_with_few_patients_is_said_to_have_too_few() -> None:
    figure = charts.forest(POOLED, [("north", Metrics(figure="dice"))], ["north"])
    assert "too few to show" in "".join(note.text for note in figure.layout.annotations)
