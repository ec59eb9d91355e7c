"""Start a program that dies with its parent: `leash.py PARENT_PID PROGRAM ARGUMENT...`.

Linux delivers the parent-death signal (prctl(2), PR_SET_PDEATHSIG) to the program even after execve. The file is run by
its path with `python -I -S`, so it imports nothing but the standard library and is gone (replaced) in 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    tie_to(parent)
    os.execvp(program[0], program)  # noqa: S606 -- becoming the program, without a shell, is the purpose


def tie_to(parent: int) -> None:
    """Let this process die with its parent; end it at once if that is its parent no more."""
    ask_the_kernel(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call: no signal will come
        os._exit(1)


def ask_the_kernel(option: int, value: int) -> None:
    """Call prctl(2). Raises: OSError if it is refused."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) was refused")


if __name__ == "__main__":
    main(sys.argv[1:])
