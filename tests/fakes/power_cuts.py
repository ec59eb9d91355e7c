"""A gate's process that ends between two of its steps."""

from collections.abc import Callable


class PowerCutError(Exception):
    """The process ends here."""


def power_cut(step: str, occurrence: int = 1) -> Callable[[str], None]:
    """Return a checkpoint that ends the process where it comes to a step for the so many-th time."""
    passed = 0

    def cut(name: str) -> None:
        nonlocal passed
        passed += name == step
        if name == step and passed == occurrence:
            raise PowerCutError

    return cut
