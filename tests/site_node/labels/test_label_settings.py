"""The hospital's own words in site.yaml, or in a file of their own."""

from pathlib import Path

import pytest

from site_node.errors import SettingsError
from site_node.label_settings import LabelSettings
from site_node.settings import load_settings


def settings_of(folder: Path, text: str) -> LabelSettings:
    (folder / "site.yaml").write_text(f"name: st-anna\nhub: http://127.0.0.1:9\nimages: [images]\n{text}")
    return load_settings(folder).labelling


def test_without_words_there_are_none(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "") == LabelSettings()


def test_numbers_and_nothing_are_words_too(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path, "label_names: {255: tumour, GTV-1: Tumour, couch: }\nreports: {label: 'DCM:121071'}\n"
    )
    assert found.names == {"255": "tumour", "GTV-1": "Tumour", "couch": ""}
    assert found.reports == {"label": "DCM:121071"}


def test_the_words_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text("GTV-1: tumour\n255: tumour\n")
    assert settings_of(tmp_path, "label_names: names.yaml\n").names == {"GTV-1": "tumour", "255": "tumour"}


@pytest.mark.parametrize("content", [None, "[GTV-1]", "GTV-1: [", "just text"])
def test_a_file_that_holds_no_words_is_refused_without_what_it_holds(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "names.yaml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        settings_of(tmp_path, "label_names: names.yaml\n")
    assert "GTV" not in caught.value.message


def test_what_is_no_table_of_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="label_names"):
        settings_of(tmp_path, "label_names: [a, b]\n")
