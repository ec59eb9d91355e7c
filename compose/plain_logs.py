"""What `wardround simulate` says of a part that fails: one plain line, with the hospital's name before it."""

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger


def log_plainly() -> None:
    """Send warnings and errors of all parts to standard error, a line each."""
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, plain_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def plain_line(_: WrappedLogger, __: str, entry: EventDict) -> str:
    """Return one line of a log entry: who, what, and why if that is known. Pure."""
    who, what = entry.get("site", "hub"), str(entry["event"]).replace("_", " ")
    why = entry.get("error") or entry.get("why")
    return " ".join(f"{who}: {what}{f': {why}' if why else ''}".split())
