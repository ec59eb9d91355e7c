"""Cosines between updates: by hand on two values, and as plain arithmetic on many."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hub.aggregation import chunks
from hub.aggregation.agreement import Sent, courses_of
from protocol.compression.coding import CodingTerms, decoded, encoded
from protocol.compression.steps import parse_steps
from protocol.tensors import encode_weights, read_manifest


def stored(folder: Path, name: str, values: object) -> Path:
    path = folder / f"{name}.safetensors"
    path.write_bytes(encode_weights({"w": np.asarray(values, np.float32)}))
    return path


def test_agreement_is_the_cosine_with_the_others_weighted_mean(tmp_path: Path) -> None:
    sent = [
        Sent("anna", stored(tmp_path, "a", [1.0, 0.0]), 1.0),
        Sent("bela", stored(tmp_path, "b", [0.0, 2.0]), 3.0),
        Sent("clara", stored(tmp_path, "c", [-4.0, 0.0]), 2.0),
    ]
    courses = courses_of(sent, read_manifest(sent[0].path))
    assert courses["anna"].agreement == pytest.approx(-0.8)  # others 3 (0, 2) + 2 (-4, 0) = (-8, 6)
    assert courses["bela"].agreement == pytest.approx(0.0)  # others (-7, 0)
    assert courses["clara"].agreement == pytest.approx(-1 / np.sqrt(37))  # others (1, 6)
    assert {course.trend for course in courses.values()} == {None}


def test_trend_is_the_cosine_with_the_site_s_own_last_update(tmp_path: Path) -> None:
    files = {name: stored(tmp_path, name, values) for name, values in {"n": [3.0, 4.0], "b": [-6.0, -8.0]}.items()}
    alone = [Sent("anna", files["n"], 1.0, files["b"])]
    course = courses_of(alone, read_manifest(files["n"]))["anna"]
    assert course.trend == pytest.approx(-1.0)
    assert course.agreement is None  # there is nobody to agree with


def test_a_site_without_movement_agrees_with_nobody_and_disturbs_nobody(tmp_path: Path) -> None:
    still, moving = stored(tmp_path, "s", [0.0, 0.0]), stored(tmp_path, "m", [1.0, 1.0])
    courses = courses_of([Sent("still", still, 1.0, still), Sent("moving", moving, 1.0)], read_manifest(still))
    assert (courses["still"].agreement, courses["still"].trend, courses["moving"].agreement) == (0.0, 0.0, 0.0)


def test_chunk_by_chunk_is_the_whole_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 1)  # windows of the smallest width: several of them
    rows = generator.normal(size=(6, 5000)).astype(np.float32)
    paths = [stored(tmp_path, str(number), row) for number, row in enumerate(rows)]
    weights = [1.0, 2.0, 3.0]
    sent = [Sent(f"s{i}", paths[i], weights[i], paths[3 + i] if i != 1 else None) for i in range(3)]
    courses = courses_of(sent, read_manifest(paths[0]))
    wide = rows.astype(np.float64)
    for i in range(3):
        others = sum(weights[j] * wide[j] for j in range(3) if j != i)
        wanted = wide[i] @ others / np.linalg.norm(wide[i]) / np.linalg.norm(others)
        assert courses[f"s{i}"].agreement == pytest.approx(wanted, abs=1e-12)
    assert courses["s1"].trend is None
    wanted = wide[2] @ wide[5] / np.linalg.norm(wide[2]) / np.linalg.norm(wide[5])
    assert courses["s2"].trend == pytest.approx(wanted, abs=1e-12)


def test_cosines_of_sparse_updates_are_shorter_than_those_of_whole_ones(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    common, *own = generator.normal(size=(4, 100_000))
    whole = [((common + one) / np.sqrt(2)).astype(np.float32) for one in own]  # any two have cosine 0.5
    assert course_after(tmp_path, whole, "half") == pytest.approx((0.5, 0.5), abs=0.01)
    assert course_after(tmp_path, whole, "top-k:0.03") == pytest.approx((0.175, 0.175), abs=0.01)
    # The places of random-k are the same at all sites, and others in each round.
    assert course_after(tmp_path, whole, "random-k:0.03") == pytest.approx((0.5, 0.015), abs=0.02)


def course_after(folder: Path, whole: list[NDArray[np.float32]], step: str) -> tuple[float, float]:
    """Return the first site's agreement with the second's update, and its trend from the third, as they travel."""
    manifest = read_manifest(stored(folder, "whole", whole[0]))
    files = []
    for number, (row, round_number) in enumerate(zip(whole, (2, 2, 1), strict=True)):
        terms = CodingTerms(parse_steps([step]), manifest, "sha256:" + "5" * 64, round_number, feedback=True)
        files.append(stored(folder, f"sent-{number}", decoded(b"".join(encoded([row], terms)), terms)))
    sent = [Sent("anna", files[0], 1.0, files[2]), Sent("bela", files[1], 1.0)]
    course = courses_of(sent, manifest)["anna"]
    assert course.agreement is not None
    assert course.trend is not None
    return course.agreement, course.trend
