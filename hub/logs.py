"""What a process of the hub says, and to whom: lines for people on a terminal, JSON for a log collector."""

import sys

import structlog


def configure_logs() -> None:
    """Log to stderr: for people on a terminal, else as JSON lines. Tracebacks never show local variables."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    # A rich traceback prints the variables of every frame: tensors and messages would be in the log.
    shorten = [] if terminal else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *shorten,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
