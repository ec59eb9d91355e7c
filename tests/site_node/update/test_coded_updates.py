"""Updates by lossy steps: what is lost stays at the site and comes with a later update; under masks too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from protocol.compression.coding import decoded
from protocol.compression.seeded_values import scattered
from protocol.compression.terms import upload_terms
from protocol.errors import CodecError, MaskingError
from protocol.manifest import manifest_of
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.vector import vector_terms
from protocol.study import StudySpec, parse_study
from protocol.tensors import Vector, Weights, flatten
from site_node.errors import NotFiniteError
from site_node.training.local_state import LocalState
from site_node.update.steps import RESIDUAL, Payload, Rounding, update_payload, weights_payload
from tests.site_node.training.examples import make_study

MASKS: dict[str, Any] = {
    "participants": {"minimum_sites": 4, "training_patients": 100},
    "secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 100, "value_range": 8.0},
}


def study_sending(*steps: str, feedback: bool | None = None, **changes: Any) -> StudySpec:
    document = make_study().model_dump(mode="json", by_alias=True)
    return parse_study(document | {"transport": {"upload": list(steps), "error_feedback": feedback}} | changes)


def update(seed: int) -> Weights:
    chance = np.random.default_rng(seed)
    return {"a": chance.normal(size=(40, 3)).astype(np.float32), "b": chance.normal(size=7).astype(np.float32)}


MANIFEST = manifest_of(update(0))


def draws(count: int) -> NDArray[np.uint32]:
    return np.random.default_rng(count).integers(0, 2**32, count, np.uint32)


def rounding(folder: Path, study: StudySpec, number: int) -> Rounding:
    return Rounding(50, draws, number, LocalState(folder, study.digest, number))


def opened(study: StudySpec, payload: Payload, number: int) -> Vector:
    terms = upload_terms(study, MANIFEST, number)
    if study.secure_aggregation.method == "none":
        data = zstandard.ZstdDecompressor().decompress(payload.data) if terms.steps.zstandard else payload.data
        return decoded(bytes(data), terms)
    masked = vector_terms(study, MANIFEST.parameters)
    words = masked.ring.decode(masked.ring.from_bytes(payload.data))
    assert len(payload.data) == masked.candidate_bytes
    return np.concatenate([*scattered([dequantise(words, masked.unit, masked.share_of(50))], terms)])


KEEPING = [
    study_sending("top-k:0.05"),
    study_sending("top-k:0.05", "quantise:3", "zstandard"),
    study_sending("random-k:0.1", "half", feedback=True),
    study_sending("quantise:2", feedback=True),
    study_sending("random-k:0.2", feedback=True, **MASKS),
]


@pytest.mark.parametrize("study", KEEPING, ids=lambda study: "+".join(study.transport.upload))
def test_all_that_was_sent_and_what_is_kept_is_all_that_was_learnt(study: StudySpec, tmp_path: Path) -> None:
    sent, learnt = np.zeros(MANIFEST.parameters), np.zeros(MANIFEST.parameters)
    for number in (1, 2, 5, 6):  # the site was not asked in rounds 3 and 4
        payload = update_payload(study, update(number), rounding(tmp_path, study, number))
        sent += opened(study, payload, number)
        learnt += flatten(update(number), MANIFEST)
    kept = LocalState(tmp_path, study.digest, 7).before(RESIDUAL)
    assert kept is not None
    assert sent + flatten(kept, MANIFEST) == pytest.approx(learnt, abs=1e-4)
    assert np.abs(sent - learnt).max() > 0.1


@pytest.mark.parametrize("study", KEEPING, ids=lambda study: "+".join(study.transport.upload))
def test_a_round_that_is_repeated_sends_the_same_bytes_and_keeps_the_same(study: StudySpec, tmp_path: Path) -> None:
    update_payload(study, update(1), rounding(tmp_path, study, 1))
    first = update_payload(study, update(2), rounding(tmp_path, study, 2))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert update_payload(study, update(2), rounding(tmp_path, study, 2)) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == kept


def test_unbiased_steps_keep_nothing_at_the_site(tmp_path: Path) -> None:
    study = study_sending("random-k:0.1", "quantise:8", "zstandard")
    payload = update_payload(study, update(1), rounding(tmp_path, study, 1))
    assert payload.steps == ("difference", "random-k", "quantise", "zstandard")
    assert not list(tmp_path.rglob("*"))


def test_fewer_values_under_masks_are_those_of_the_round_s_places() -> None:
    study = study_sending("random-k:0.1", **MASKS)
    payloads = [update_payload(study, update(1), Rounding(50, draws, number)) for number in (1, 2)]
    assert payloads[0].steps == ("difference", "random-k", "quantised")
    values = [opened(study, payload, number) for number, payload in enumerate(payloads, 1)]
    assert [np.count_nonzero(vector) for vector in values] == [13, 13]  # a tenth of 127 values
    assert (np.flatnonzero(values[0]) != np.flatnonzero(values[1])).any()
    places = np.flatnonzero(values[0])
    expected = flatten(update(1), MANIFEST)[places] * (127 / 13)
    assert values[0][places] == pytest.approx(expected, abs=8.0 / 4095 * 2 * 127 / 13)


def test_version_0_is_sent_without_loss_whatever_the_steps() -> None:
    assert weights_payload(study_sending("top-k:0.1", "zstandard"), update(1)).steps == ("weights", "zstandard")
    assert weights_payload(study_sending("quantise:8"), update(1)).steps == ("weights",)


def test_an_update_is_never_sent_half_made(tmp_path: Path) -> None:
    study = study_sending("top-k:0.1")
    with pytest.raises(MaskingError, match="rounded first"):
        update_payload(study, update(1))
    with pytest.raises(CodecError, match="state of the study"):
        update_payload(study, update(1), replace(rounding(tmp_path, study, 1), state=None))
    broken = {**update(1), "b": np.full(7, np.nan, np.float32)}
    with pytest.raises(NotFiniteError, match="finite"):
        update_payload(study, broken, rounding(tmp_path, study, 1))
