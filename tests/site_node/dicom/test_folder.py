"""Walking: every regular file once, in order, whatever else lies there."""

import os
from pathlib import Path

import numpy as np
import pytest

from site_node.dicom.folder import examine, is_companion, walk
from site_node.dicom.parallel import for_each_file
from site_node.errors import IndexingError
from tests.fakes.dicom import make_dataset, save

PIXELS = np.zeros((8, 8), dtype=np.uint8)


def test_files_come_sorted_and_with_size_and_time(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    found = list(walk(tmp_path))
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == ["a", "b/1", "b/2", "c/d/e"]
    assert all(file.size == 3 and file.mtime_ns > 0 and file.problem is None for file in found)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"1")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert len(list(walk(tmp_path))) == 1


def test_a_dangling_link_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "lost.dcm").symlink_to(tmp_path / "nowhere")
    (found,) = walk(tmp_path)
    assert found.problem is not None
    assert "not there" in found.problem


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert list(walk(tmp_path)) == []


def test_a_missing_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(IndexingError) as caught:
        list(walk(tmp_path / "gone"))
    assert "mounted" in caught.value.remedy


@pytest.mark.parametrize("name", ["labels.csv", "README.md", "ATTRIBUTION", ".DS_Store", "notes.TXT", "Thumbs.db"])
def test_companions_are_known_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("words")
    assert is_companion(path)
    outcome = examine(path)
    assert (outcome.header, outcome.problem) == (None, None)


def test_an_image_with_a_companions_name_is_an_image(tmp_path: Path) -> None:
    assert examine(save(make_dataset(PIXELS), tmp_path / "image.txt")).header is not None


def test_other_files_are_findings(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"\x89PNG")
    assert examine(tmp_path / "scan.png").problem == "not a DICOM file"


def test_in_parallel_the_outcomes_are_the_same(tmp_path: Path) -> None:
    paths = [save(make_dataset(PIXELS, f"P{n}"), tmp_path / f"{n}.dcm") for n in range(9)]
    paths.append(tmp_path / "gone.dcm")
    assert list(for_each_file(examine, paths, processes=2)) == list(for_each_file(examine, paths, processes=1))
