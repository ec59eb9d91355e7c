"""Window and level: against values computed by hand from PS3.3 C.11.2."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from site_node.dicom.display_window import KINDS, Kind, Window, displayed, window_of


def grey(value: float, window: Window) -> float:
    return float(displayed(np.array([value]), window)[0])


def test_linear_by_hand() -> None:
    # the standard's own example: c = 2048, w = 4096 shows 0 as black and 4095 as white
    window = Window(2048, 4096)
    assert grey(0, window) == 0
    assert grey(4095, window) == 1
    assert grey(2047.5, window) == pytest.approx(0.5)
    # c = 0, w = 100 (the standard): <= -50 is black, > 49 is white, else ((x + 0.5) / 99 + 0.5)
    window = Window(0, 100)
    assert (grey(-50, window), grey(49, window)) == (0, 1)
    assert grey(10, window) == pytest.approx(10.5 / 99 + 0.5)


def test_linear_exact_by_hand() -> None:
    # c = 0, w = 100 (the standard): <= -50 is black, > 50 is white, else (x / 100 + 0.5)
    window = Window(0, 100, "LINEAR_EXACT")
    assert (grey(-50, window), grey(50, window)) == (0, 1)
    assert grey(10, window) == pytest.approx(0.6)


def test_sigmoid_by_hand() -> None:
    # 1 / (1 + exp(-4 (x - c) / w)): at the centre one half, a quarter width above it 1 / (1 + 1/e)
    window = Window(40, 400, "SIGMOID")
    assert grey(40, window) == 0.5
    assert grey(140, window) == pytest.approx(0.7310586)
    assert grey(-1e9, window) == 0


def test_a_width_of_one_is_a_step() -> None:
    window = Window(10, 1)
    assert (grey(9.5, window), grey(9.6, window)) == (0, 1)


@pytest.mark.parametrize(("width", "kind"), [(0.5, "LINEAR"), (0, "LINEAR_EXACT"), (-1, "SIGMOID"), (np.nan, "LINEAR")])
def test_a_width_that_the_standard_forbids_is_refused(width: float, kind: Kind) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(0, width, kind)


def test_the_header_proposes_the_window() -> None:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = [40, 300], [400, 1500], "SIGMOID"
    assert window_of(dataset, np.zeros(2)) == Window(40, 400, "SIGMOID")


def test_a_frame_of_an_enhanced_image_has_its_own_window() -> None:
    dataset, shared = Dataset(), Dataset()
    shared.FrameVOILUTSequence = [Dataset()]
    shared.FrameVOILUTSequence[0].WindowCenter, shared.FrameVOILUTSequence[0].WindowWidth = 50, 350
    dataset.SharedFunctionalGroupsSequence = [shared]
    assert window_of(dataset, np.zeros(2), frame=3) == Window(50, 350)


@pytest.mark.parametrize("width", [None, 0, -5])
def test_without_a_usable_window_the_values_make_one(width: float | None) -> None:
    dataset = Dataset()
    if width is not None:
        dataset.WindowCenter, dataset.WindowWidth = 0, width
    window = window_of(dataset, np.arange(1001.0))
    assert (window.centre, window.width, window.kind) == (500, 990, "LINEAR_EXACT")


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    centre=st.floats(-5000, 5000),
    width=st.floats(1, 10000),
    kind=st.sampled_from(list(KINDS.values())),
)
def test_greys_lie_between_black_and_white_and_keep_the_order(
    values: list[float], centre: float, width: float, kind: Kind
) -> None:
    greys = displayed(np.sort(values), Window(centre, width, kind))
    assert greys.min() >= 0
    assert greys.max() <= 1
    assert (np.diff(greys) >= 0).all()
