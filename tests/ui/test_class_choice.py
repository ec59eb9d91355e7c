"""A study of several classes on the pages: the mean of all, and one class chosen."""

from typing import Any

import pytest

from tests.fakes import fake_hub_data as data
from tests.ui.conftest import OpenPage, text_of

NAMES = ["no finding", "pneumonia", "effusion"]


@pytest.fixture
def of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, studies = data.validation, data.studies

    def validation(study: dict[str, Any], number: int) -> dict[str, Any]:
        found = shown(study, number)
        blank: dict[str, Any] = {"roc": [], "calibration": [], "positives": None, "classes_shown": 3}
        classes = [found["pooled"] | {"auc": 0.61 + place / 10} for place in range(3)]
        sites = [site | blank | {"classes": [site, site, site]} for site in found["sites"]]
        return {"pooled": found["pooled"] | blank | {"classes": classes}, "sites": sites}

    def named(now: float) -> list[dict[str, Any]]:
        return [{**study, "study": {**study["study"], "label": {"classes": NAMES}}} for study in studies(now)]

    monkeypatch.setattr(data, "validation", validation)
    monkeypatch.setattr(data, "studies", named)


@pytest.mark.usefixtures("of_classes")
def test_the_mean_stands_first_and_each_class_can_be_chosen(open_page: OpenPage) -> None:
    app = open_page("claire", "validate_models")
    assert not app.exception
    text = text_of(app)
    assert "Mean AUC" in text
    assert all(name in text for name in NAMES)
    assert "Sensitivity</" not in text.split("Which classes")[0]
    app.button_group[0].set_value("effusion").run()
    assert not app.exception
    assert "Mean AUC" not in text_of(app)
    assert "Brier score" in text_of(app)
