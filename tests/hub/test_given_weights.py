"""Weights from outside: taken in once, named in the audit log, and then a study may start from them."""

from pathlib import Path

import numpy as np
import pytest

from hub.errors import RequestError
from hub.registry.given_weights import give_weights
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.studies import coordinator
from protocol.digest import parse_json
from protocol.study import StudySpec
from protocol.tensors import encode_weights
from tests.fakes.hospital import Hospital

pytestmark = pytest.mark.both_databases
WEIGHTS = {"layer": np.array([[1.0, -2.0]], np.float32)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(encode_weights(WEIGHTS))
    return path


def starting(spec: StudySpec, weights: str) -> StudySpec:
    return spec.model_copy(update={"start": spec.start.model_copy(update={"weights": weights})})


def test_a_study_may_start_from_given_weights_alone(
    services: Services, hospitals: list[Hospital], spec: StudySpec, file: Path
) -> None:
    kept = services.blobs.put(encode_weights({"secret": np.zeros(1, np.float32)}))  # as one hospital's update is
    with pytest.raises(RequestError, match="No version at this hub"):
        coordinator.propose(services, starting(spec, kept), [], "researcher")
    digest = give_weights(services, file, "operator:console")
    assert coordinator.propose(services, starting(spec, digest), [], "researcher")


def test_the_audit_log_names_them_once(services: Services, file: Path) -> None:
    digests = {give_weights(services, file, "operator:console") for _ in range(2)}
    with services.reading() as session:
        entries = [parse_json(entry) for _, entry, _, _ in audit_stores.stream(session)]
        row = stores.given_weights(session, *digests)
    given = [entry for entry in entries if entry["action"] == "weights.given"]
    assert [(entry["actor"], {entry["subject"]}) for entry in given] == [("operator:console", digests)]
    assert row is not None
    assert row.weights_bytes == file.stat().st_size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no weights at all", "holds no weights"),
        (encode_weights(WEIGHTS)[:-1], "holds no weights"),
        (encode_weights({"layer": np.array([np.inf], np.float32)}), "not all finite"),
    ],
)
def test_what_is_no_weights_is_refused(services: Services, file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        give_weights(services, file, "operator:console")
