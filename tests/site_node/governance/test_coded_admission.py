"""Updates by lossy steps at the gate: what the study's steps make leaves, anything else does not."""

from dataclasses import dataclass

import numpy as np
import pytest

from protocol.compression.coding import encoded
from protocol.compression.terms import upload_terms
from protocol.manifest import manifest_of
from protocol.messages import Reason, TaskRefusal, UpdateNotice
from protocol.study import StudySpec
from protocol.tensors import encode_weights, flatten
from tests.fakes.gated_site import GatedSite, study_of, weights

STEPS = ["top-k:0.5", "quantise:8", "zstandard"]
PLACES_BYTES = 2
"""A bitmap of nine values; the scale of the first tensor that sends one follows."""
NAMES = ["difference", "top-k", "quantise", "zstandard"]


def coded(study: StudySpec, value: float = 0.5) -> bytes:
    model = weights(value)
    terms = upload_terms(study, manifest_of(model), 1)
    return b"".join(encoded([flatten(model, manifest_of(model))], terms))


def sparse_study() -> StudySpec:
    return study_of(transport={"upload": STEPS})


def test_an_update_as_the_study_s_steps_make_it_leaves(site: GatedSite) -> None:
    study = sparse_study()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, coded(study), steps=NAMES)
    site.sweep()
    notice = site.sent()[-1]
    assert isinstance(notice, UpdateNotice)
    assert notice.steps == NAMES
    assert notice.payload_bytes < 100


@dataclass(frozen=True)
class Bad:
    """A payload that must not leave."""

    name: str
    reason: Reason = Reason.INTERNAL

    def payload(self, study: StudySpec) -> bytes:
        good = coded(study)
        scale = np.float32(np.nan if self.name == "a scale that is no number" else 1e30).tobytes()
        return {
            "cut off": good[:-1],
            "longer": good + b"\0",
            "a whole weights file": encode_weights(weights()),
            "nothing": b"",
            "other places": bytes([0xFF]) * PLACES_BYTES + good[PLACES_BYTES:],
        }.get(self.name, good[:PLACES_BYTES] + scale + good[PLACES_BYTES + 4 :])


@pytest.mark.parametrize(
    "bad",
    [
        Bad("cut off"),
        Bad("longer"),
        Bad("a whole weights file"),
        Bad("nothing"),
        Bad("other places"),
        Bad("a scale that is no number"),
        Bad("far too large a norm", Reason.NOT_FINITE),
    ],
    ids=lambda bad: bad.name,
)
def test_a_payload_that_the_steps_do_not_make_is_refused_and_does_not_leave(site: GatedSite, bad: Bad) -> None:
    study = sparse_study()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, bad.payload(study), steps=NAMES)
    site.sweep()
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason == bad.reason
    assert list(site.paths.outbox.glob("*.payload")) == []


def test_a_whole_update_does_not_leave_where_the_study_says_less(site: GatedSite) -> None:
    study = sparse_study()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)
