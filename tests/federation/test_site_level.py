"""Site-level privacy in a whole federation of small hospitals, and the length that follows their updates."""

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from hub.aggregation.choosing import strategy_of
from hub.aggregation.strategy import CountedUpdate
from hub.registry.blobs import BlobStore
from hub.registry.lineage import read_lineage
from protocol.messages import UpdateNotice, expect
from protocol.signing import read_unverified
from protocol.site_level import next_update_norm
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, decode_weights, encode_weights, norm_of
from site_node.privacy.noise import NoiseSource
from site_node.training.networks import initial_weights
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.site_level import train_and_release
from site_node.training.trainer import train
from site_node.update.steps import difference
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_patients


def study_of(sites: int, rounds: int, **privacy: Any) -> dict[str, Any]:
    terms = {"unit": "site", "mechanism": "site-level", "epsilon": 1000.0, "delta": 1e-4, "update_norm_rate": 0.5}
    return {
        "name": "small-sites",
        "cohort": {"modality": ["DX"], "minimum_patients": 2},
        "label": {"classes": ["absent", "present"]},
        "splits": {"validation": 0.2, "test": 0.0},
        "preprocessing": {"size": [8, 8], "augmentation": "none"},
        "network": {
            "name": "convnet",
            "arguments": {"channels": [2, 2], "strides": [2, 2], "kernels": [3, 3], "head": 2, "groups": 1},
        },
        "training": {"local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.5},
        "strategy": {"weighting": "equal"},
        "rounds": rounds,
        "participants": {"minimum_sites": sites, "quorum": 1.0, "training_patients": 120},
        "evaluation": {"every": 1000},
        "privacy": terms | privacy,
    }


def test_ten_hospitals_run_and_every_length_follows_from_the_bits_that_came(tmp_path: Path) -> None:
    options = []
    for number in range(10):
        make_hospital(tmp_path / f"s{number}", patients=6 + number % 3, seed=number)
        options += ["--site", f"s{number}={tmp_path / f's{number}'}"]
    document = study_of(10, 2, update_norm=0.1)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [str(tmp_path / "study.yaml"), "--out", str(out), "--threads", "1", *options])
    assert result.exit_code == 0, result.output
    with sqlite3.connect(out / "hub" / "hub.sqlite") as database:
        rows = database.execute("SELECT round, notice FROM updates WHERE round > 0").fetchall()
        versions = database.execute("SELECT lineage FROM versions ORDER BY number").fetchall()
    database.close()
    norms = [read_lineage(lineage)["server_state"]["numbers"]["update_norm"] for (lineage,) in versions]
    assert norms[0] == 0.1
    for number in (1, 2):
        notices = [expect(read_unverified(notice), UpdateNotice) for where, notice in rows if where == number]
        bits = [notice.uncut for notice in notices if notice.uncut is not None]
        assert len(bits) == 10
        assert len(set(bits)) == 10  # each with noise of its own
        assert norms[number] == pytest.approx(next_update_norm(norms[number - 1], bits, 0.5, 0.5))


@dataclass(frozen=True)
class Federation:
    """Twenty small sites without a network between them."""

    study: StudySpec
    blobs: BlobStore

    @cached_property
    def patients(self) -> list[PreparedPatients]:
        return [make_patients([1] * (5 + number % 4), (8, 8), seed=number) for number in range(20)]

    def quantile_of_updates(self, base: Weights, round_number: int) -> float:
        norms = []
        for site, patients in enumerate(self.patients):
            noise = self._noise(site, round_number)
            trained = train(self.study, base, patients, noise, noise_multiplier=None, round_number=round_number)
            norms.append(norm_of(difference(base, trained)))
        return float(np.quantile(norms, self.study.privacy.update_quantile))

    def updates(self, base: Weights, round_number: int, length: float) -> list[CountedUpdate]:
        counted = []
        for site, patients in enumerate(self.patients):
            released = train_and_release(
                self.study,
                base,
                patients,
                self._noise(site, round_number),
                noise_multiplier=0.01,
                update_norm=length,
                round_number=round_number,
            )
            counted.append(CountedUpdate(f"{site}", self.blobs.put(encode_weights(released.update)), 1, released.uncut))
        return counted

    def _noise(self, site: int, round_number: int) -> NoiseSource:
        return NoiseSource(bytes([site] * 32), f"round {round_number}", "cohort")


@pytest.mark.parametrize(("factor", "quantile"), [(0.1, 0.5), (0.1, 0.8), (10.0, 0.2)])
def test_the_length_converges_to_the_quantile_of_the_updates(tmp_path: Path, factor: float, quantile: float) -> None:
    document = study_of(20, 12, update_quantile=quantile, update_norm_rate=1.0, clip_norm=100.0)
    document["training"] |= {"local_steps": 1, "learning_rate": 0.01}  # weights hardly move, so lengths stay
    federation = Federation(parse_study(document), BlobStore(tmp_path / "blobs"))
    base = initial_weights(federation.study)
    sought = federation.quantile_of_updates(base, 1)
    strategy = strategy_of(federation.study)
    state = strategy.init(federation.blobs.put(encode_weights(base))).with_numbers(update_norm=factor * sought)
    lengths = []
    for number in range(1, 13):
        base = decode_weights(federation.blobs.path(state.weights))
        state = strategy.apply(state, federation.updates(base, number, state.update_norm or 0.0), federation.blobs)
        lengths.append(state.update_norm or 0.0)
    assert np.median(lengths[-5:]) == pytest.approx(federation.quantile_of_updates(base, 12), rel=0.25)
