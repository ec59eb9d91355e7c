"""Tests run side by side: each process gets one processor thread, or they would wait for each other's."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
