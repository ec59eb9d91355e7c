import stat
from pathlib import Path

import pytest

from compose.errors import DemoError
from compose.layout import DemoLayout, DemoState, write_json


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(DemoError, match="--dir"):
        DemoLayout(tmp_path).prepare(fresh=True)
    assert (tmp_path / "thesis.docx").read_text() == "years"


def test_fresh_removes_an_earlier_demo_and_nothing_else(tmp_path: Path) -> None:
    layout = DemoLayout(tmp_path)
    layout.prepare(fresh=False)
    layout.hub.mkdir()
    layout.remember(DemoState(study_digest="sha256:1"))
    (tmp_path / "notes.txt").write_text("mine")
    layout.prepare(fresh=True)
    assert not layout.hub.exists()
    assert layout.state() == DemoState()
    assert (tmp_path / "notes.txt").exists()


def test_without_fresh_the_state_of_the_last_run_is_kept(tmp_path: Path) -> None:
    layout = DemoLayout(tmp_path / "new" / "demo")
    layout.prepare(fresh=False)
    layout.remember(layout.state().with_port("hub", 8441).with_port("ui", 8502))
    layout.prepare(fresh=False)
    assert layout.state().ports == {"hub": 8441, "ui": 8502}


def test_a_second_demo_in_the_same_folder_is_told_so(tmp_path: Path) -> None:
    layout = DemoLayout(tmp_path)
    with layout.locked(), pytest.raises(DemoError, match="running"), DemoLayout(tmp_path).locked():
        pass
    with layout.locked():
        layout.prepare(fresh=False)


def test_passwords_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    write_json(path, {"operator": "x"}, mode=0o600)
    write_json(path, {"operator": "y"}, mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
