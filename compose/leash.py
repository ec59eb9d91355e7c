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
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:  # it died between the fork and the prctl: no signal will come
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 -- becoming the program, without a shell, is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
