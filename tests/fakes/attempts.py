"""Try what a process may not do, and print what the kernel said: `attempts.py JSON`.

The argument is a list of attempts, each a list of words: ["tcp", host, port], ["udp", host, port], ["unix", path],
["read", path], ["write", folder], ["list", folder]. The answer is a list of "ok" or the name of the error, in the same
order. Run by path with `python -I -S`, inside the walls of the process whose part it takes; standard library only.
"""

import errno
import json
import socket
import sys
from pathlib import Path

SECONDS = 3.0


def attempt(kind: str, where: str, port: int = 0) -> str:
    """Do one thing and return how it ended."""
    try:
        if kind in ("tcp", "udp"):
            _reach(kind, where, port)
        elif kind == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(where)
        elif kind == "read":
            Path(where).read_bytes()
        elif kind == "list":
            list(Path(where).iterdir())
        else:
            file = Path(where) / "attempt"
            file.write_bytes(b"x")
            file.unlink()
    except TimeoutError:
        return "TIMEOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "ok"


def _reach(kind: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect((host, port))
        connection.send(b"\n")


if __name__ == "__main__":
    sys.stdout.write(json.dumps([attempt(*words) for words in json.loads(sys.argv[1])]))
