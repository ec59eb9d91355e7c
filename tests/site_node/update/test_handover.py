"""A payload is synced by the worker unless the gate can tell, by the run of their machine, that the power failed."""

import os
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes
from site_node.candidate import read_candidate
from site_node.durable import boot_id
from site_node.orders import WorkOrder
from site_node.settings import SitePaths
from site_node.update.handover import hand_over_payload
from site_node.update.steps import Payload

DIGEST = "sha256:" + "0" * 64
DATA = b"update" * 100


@pytest.mark.parametrize(
    ("boot", "is_synced"), [(boot_id(), boot_id() is None), (None, True), ("another machine's", True)]
)
def test_the_worker_syncs_a_payload_only_where_a_power_cut_would_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str | None, is_synced: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    order = WorkOrder(kind="train", task_id="t", task_digest=DIGEST, study={}, study_digest=DIGEST, boot=boot)
    paths = SitePaths(tmp_path)
    hand_over_payload(paths, order, Payload(DATA, ("difference",), DIGEST))
    candidate = read_candidate(paths, "t")
    assert candidate is not None
    assert candidate.payload_digest == digest_of_bytes(DATA)
    assert candidate.unsynced_in == (None if is_synced else boot)
    assert (len(DATA) in synced) == is_synced
