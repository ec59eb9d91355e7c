"""A site whose patients are rows of a table: made, indexed and refused by command, and no value said."""

import json
from pathlib import Path

import pytest

from site_node.errors import SettingsError
from site_node.settings import load_settings
from tests.fakes.site_command import run
from tests.site_node.cohort.tables import SURVIVAL_HEADER, many_rows, write_table


def made(tmp_path: Path, rows: list[str], header: str = SURVIVAL_HEADER) -> str:
    table = write_table(tmp_path / "table.csv", rows, header)
    site = str(tmp_path / "site")
    status, output = run("init", site, "--name", "st-anna", "--hub", "http://127.0.0.1:9", "--table", str(table))
    assert status == 0, output
    return site


def test_a_site_may_offer_a_table_and_no_image(tmp_path: Path) -> None:
    settings = load_settings(Path(made(tmp_path, many_rows(4))))
    assert settings.images == ()
    assert settings.table == tmp_path / "table.csv"


def test_a_site_that_offers_neither_is_refused(tmp_path: Path) -> None:
    folder = Path(made(tmp_path, many_rows(4)))
    configuration = folder / "site.yaml"
    lines = [line for line in configuration.read_text().splitlines() if not line.startswith("table:")]
    configuration.write_text("\n".join(lines))
    with pytest.raises(SettingsError, match="neither images nor a table"):
        load_settings(folder)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    options = ["--name", "a", "--hub", "http://127.0.0.1:9", "--table", str(tmp_path / "gone.csv")]
    status, output = run("init", str(tmp_path / "s"), *options)
    assert (status, "There is no file" in output) == (1, True)


def test_index_counts_rows_and_patients_and_says_no_value(tmp_path: Path) -> None:
    rows = [*many_rows(20), "PAT-1,61,0.5,1,train,9", ",70,1,0,train,3", *(f"Q{n},1,1,0,later,3" for n in range(12))]
    site = made(tmp_path, [*rows, "PAT-2,61,0.5,1,test,9"])
    status, output = run("index", site)
    assert (status, output.splitlines()) == (
        0,
        [
            "a table of 35 rows of 32 patients, 6 columns",
            "  fewer than 10 x patient: the rows of one patient are put into several splits",
            "  fewer than 10 x row: it lacks a patient id",
            "  12 x row: the split is none of train, validation, test",
        ],
    )
    assert "PAT-" not in output


def test_index_as_json_hides_small_numbers(tmp_path: Path) -> None:
    site = made(tmp_path, [*many_rows(20), ",70,1,0,train,3"])
    status, output = run("index", site, "--json")
    assert (status, json.loads(output)["table"]) == (
        0,
        {
            "rows": 21,
            "patients": 20,
            "columns": 6,
            "problems": [{"reason": "row: it lacks a patient id", "number": None}],
        },
    )


def test_a_table_without_a_header_line_is_refused_and_nothing_of_it_said(tmp_path: Path) -> None:
    site = made(tmp_path, many_rows(3), header="")
    status, output = run("index", site)
    assert (status, "lacks the column 'patient_id'" in output) == (1, True)
    assert "PAT-" not in output


def test_images_and_a_table_may_stand_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    site = made(tmp_path, many_rows(4))
    configuration = Path(site) / "site.yaml"
    configuration.write_text(configuration.read_text() + f"\nimages: [{tmp_path / 'images'}]\n")
    status, output = run("index", site)
    assert status == 0
    assert [line.split(":")[0].split(" of ")[0] for line in output.splitlines()] == ["0 files", "a table"]
