"""The DICOM library kept quiet: its warnings, also those to its log, quote the values that it finds odd."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_quiet = ContextVar("_is_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Let no warning of the DICOM library out, neither as a warning nor into a log; within itself it costs nothing."""
    if _is_quiet.get():
        yield
        return
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            token = _is_quiet.set(True)
            try:
                yield
            finally:
                _is_quiet.reset(token)
    finally:
        logger.setLevel(before)
