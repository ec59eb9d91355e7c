"""Errors of the compose package.

    ComposeError
    ├── ServiceError   a process of the demo does not stay up, or a command of its set-up failed
    ├── PortError      no free port was found
    ├── DemoError      the demo cannot go on: folder in use, study not usable, study failed
    └── SimulationError  the simulation cannot start or go on

Messages say what was expected, what came and what to do.
"""


class ComposeError(Exception):
    """Base of all errors of this package."""


class ServiceError(ComposeError):
    """A process of the demo does not stay up, or a command of its set-up failed."""


class PortError(ComposeError):
    """No free port was found."""


class DemoError(ComposeError):
    """The demo cannot go on."""


class SimulationError(ComposeError):
    """The simulation cannot start or go on."""
