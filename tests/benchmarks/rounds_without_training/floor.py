"""The floor under a round: the same bytes moved over loopback, digested and synced by bare processes, and one sum.

A round of one hub process (a thread for each site) and N site processes on plain sockets:

    hub    sends the version with sendfile                       site   digests it, writes it, syncs it
    site   digests its update, sends it with sendfile            hub    digests it, writes it, syncs it
    hub    adds the N files chunk by chunk, digests the mean, writes it, syncs it

No protocol, no check, no signature, no database, no second copy of anything.
"""

import hashlib
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

PIECE_BYTES = 1 << 20
ANSWER_SECONDS = 600.0


def floor_seconds(folder: Path, sites: int, parameters: int, rounds: int) -> list[float]:
    """Run so many rounds and return each one's seconds."""
    folder.mkdir(parents=True)
    (folder / "version").write_bytes(np.random.default_rng(0).standard_normal(parameters, np.float32).tobytes())
    context = multiprocessing.get_context("spawn")
    port, seconds = context.Queue(), context.Queue()
    hub = context.Process(target=_hub, args=(folder, sites, rounds, port, seconds), daemon=True)
    hub.start()
    address = ("127.0.0.1", port.get(timeout=ANSWER_SECONDS))
    others = [
        context.Process(target=_site, args=(folder / f"site{number}", parameters, rounds, address), daemon=True)
        for number in range(sites)
    ]
    for process in others:
        process.start()
    try:
        return [seconds.get(timeout=ANSWER_SECONDS) for _ in range(rounds)]
    finally:
        for process in (hub, *others):
            process.join(10)
            process.kill()


def _hub(folder: Path, sites: int, rounds: int, port: Any, seconds: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(sites) as threads:
        port.put(server.getsockname()[1])
        connections = [server.accept()[0] for _ in range(sites)]
        updates = [folder / f"update{number}" for number in range(sites)]
        for connection in connections:
            connection.recv(1)
        for _ in range(rounds):
            began = time.perf_counter()
            served = [
                threads.submit(_serve, connection, folder / "version", update)
                for connection, update in zip(connections, updates, strict=True)
            ]
            for one in served:
                one.result()
            _add(updates, folder / "version")
            seconds.put(time.perf_counter() - began)


def _serve(connection: socket.socket, version: Path, update: Path) -> None:
    with version.open("rb") as file:
        connection.sendfile(file)
    _receive(connection, update, version.stat().st_size)


def _site(folder: Path, parameters: int, rounds: int, address: tuple[str, int]) -> None:
    folder.mkdir()
    update = folder / "update"
    update.write_bytes(np.random.default_rng(os.getpid()).standard_normal(parameters, np.float32).tobytes())
    with socket.create_connection(address) as connection:
        connection.sendall(b".")
        for _ in range(rounds):
            _receive(connection, folder / "version", 4 * parameters)
            with update.open("rb") as file:
                hashlib.file_digest(file, "sha256")
                file.seek(0)
                connection.sendfile(file)


def _receive(connection: socket.socket, target: Path, size: int) -> None:
    hasher, piece = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
    with target.open("wb", buffering=0) as file:
        while size:
            count = connection.recv_into(piece[: min(size, PIECE_BYTES)])
            if not count:
                raise ConnectionError("the other end is gone")
            hasher.update(piece[:count])
            file.write(piece[:count])
            size -= count
        os.fsync(file.fileno())


def _add(updates: Sequence[Path], version: Path) -> None:
    files = [path.open("rb", buffering=0) for path in updates]
    hasher, piece = hashlib.sha256(), np.empty(PIECE_BYTES // 4, np.float32)
    with version.with_suffix(".next").open("wb", buffering=0) as written:
        while count := files[0].readinto(piece.data.cast("B")):
            total = piece[: count // 4].copy()
            for file in files[1:]:
                file.readinto(piece[: count // 4].data.cast("B"))
                total += piece[: count // 4]
            total /= len(files)
            hasher.update(total.data)
            written.write(total.data)
        os.fsync(written.fileno())
    version.with_suffix(".next").replace(version)
    for file in files:
        file.close()
