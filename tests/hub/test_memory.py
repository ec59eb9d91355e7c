"""What the C library does with freed memory, as a process asked for."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import ctypes, sys
import hub.memory
getattr(hub.memory, sys.argv[1])()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
pages = lambda: int(open("/proc/self/statm").read().split()[1])
before = pages()
block = libc.malloc(64 << 20)
ctypes.memset(block, 1, 64 << 20)
libc.free(block)
print((pages() - before) * 4096 >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limits are the GNU C library's")
@pytest.mark.parametrize(("asked", "is_kept"), [("give_back_freed_memory", False), ("keep_freed_memory", True)])
def test_a_large_block_goes_back_at_the_hub_and_is_kept_in_a_simulation(asked: str, is_kept: bool) -> None:
    found = subprocess.run([sys.executable, "-c", MEASURE, asked], capture_output=True, check=True, text=True)
    assert (int(found.stdout) > 60) is is_kept
    assert is_kept or int(found.stdout) < 4
