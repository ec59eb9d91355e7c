"""Where the worker finds the benchmark's job, and how it is told the model's size; apart, so that naming is cheap."""

JOB = "tests.benchmarks.rounds_without_training.job:hand_over"
JOB_VARIABLE = "WARDROUND_BENCHMARK_JOB"
"""The environment's variable that names the job."""
PARAMETERS = "WARDROUND_BENCHMARK_PARAMETERS"
"""The environment's variable that says how large the model is."""
PATIENTS = 100
"""What each hospital says of its training patients."""
