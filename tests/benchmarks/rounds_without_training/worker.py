"""`wardround site worker DIR`, but for the job: the benchmark's in place of training."""

import os
import sys
from pathlib import Path

from site_node.command_line import begin_process
from site_node.tasks.worker import check_ready, run_worker
from tests.benchmarks.rounds_without_training.job_name import JOB, JOB_VARIABLE

if __name__ == "__main__":
    settings = begin_process(Path(sys.argv[1]))
    check_ready(settings)
    sys.exit(run_worker(settings, os.environ.get(JOB_VARIABLE, JOB)))
