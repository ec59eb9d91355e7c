"""Find free TCP ports on the loopback interface: a taken one moves on to the next."""

import socket
from collections.abc import Collection

import psutil

from compose.errors import PortError

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 200


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not taken
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(process: int, port: int) -> bool:
    """Tell whether this process, or a child of it, holds the port: whoever answers there might be somebody else."""
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in family
            for connection in member.net_connections("tcp")
        )
    except psutil.Error:
        return False


def next_free_port(first: int, taken: Collection[int] = (), host: str = LOOPBACK) -> int:
    """Return the first free port from `first` upwards that is not in `taken`.

    Raises: PortError if the next `PORTS_TRIED` ports are all taken.
    """
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        if port not in taken and is_free(port, host):
            return port
    raise PortError(f"All ports from {first} to {first + PORTS_TRIED - 1} are taken. End the programs that hold them.")
