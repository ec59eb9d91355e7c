"""No limit on a model's size but the disk: a gigabyte and more of weights through a hub that may not hold it.

By hand also `WARDROUND_LARGE_PARAMETERS=1000000000 python -m pytest tests/benchmarks/test_large_model.py`, for which
some 40 GB of disk must be free.
"""

import os
from pathlib import Path

import psutil
import pytest

from protocol.tensors import read_manifest
from tests.benchmarks.rounds_without_training.federation import running_federation
from tests.benchmarks.rounds_without_training.large_job import LARGE_JOB
from tests.benchmarks.rounds_without_training.studies import plain_study

SITES = 2
MEGABYTE = 10**6


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_weights_of_a_gigabyte_pass_through_a_hub_of_less_memory(tmp_path: Path) -> None:
    parameters = int(os.environ.get("WARDROUND_LARGE_PARAMETERS", "300000000"))
    limit_mb = 500  # each of the two processes, so that both together stay below a gigabyte
    study = plain_study("large", SITES, 1)

    with running_federation(tmp_path, SITES, parameters, LARGE_JOB) as federation:
        for role in ("hub api", "hub worker"):
            psutil.Process(federation.supervisor.pid(role)).rlimit(psutil.RLIMIT_DATA, (limit_mb * MEGABYTE,) * 2)
        federation.run(study)
        peaks = federation.hub_peaks_mb()
        version = federation.newest_version(study)

    assert read_manifest(version).parameters == parameters
    assert version.stat().st_size > 4 * parameters
    assert sum(whole for whole, _ in peaks.values()) < 2 * limit_mb < 4 * parameters / MEGABYTE
