"""The measurement of the index, at its smallest: what it prints, and that every instance is found."""

import json
from pathlib import Path

import pytest

from site_node.cohort.index_report import index_of_any_folder
from tests.benchmarks.indexing import main, make_archive


def test_the_archive_holds_what_was_asked_for(tmp_path: Path) -> None:
    make_archive(tmp_path / "tree", 47, 12, 8, 3)
    report = index_of_any_folder(tmp_path / "tree")
    assert (report.files, report.indexed, report.instances, report.patients) == (47, 47, 12, 12)


def test_it_prints_rates_memory_and_times(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--instances", "40", "--headers", "20", "--distinct", "10", "--size", "8", "--elements", "2"]
    monkeypatch.setattr("sys.argv", ["indexing", *words])
    main()
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] == pytest.approx(found["headers_a_second"] / found["bare_pydicom_a_second"], rel=0.05)
    assert set(found["instances"]) == {"4", "40"}
    assert all(figures["mebibytes"] >= 0 for figures in found["instances"].values())
