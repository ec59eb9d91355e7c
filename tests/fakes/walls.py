"""Walls between the processes of one hospital: a network namespace and a user for each, as docs/operations.md asks.

A `Zone` is a network namespace, kept by a process that sleeps in it, so that nothing of it outlives the test. Whatever
runs in a zone runs as a numeric user of its own, without capabilities and without a way to regain any.

Python itself may lie where only root may go (pyenv in its home is a common place): every process that must *start*
Python anew, as the worker's fork server does, would fail there. So each process gets a view of the disk, a mount
namespace of its own, in which such a closed folder holds nothing but the way to Python and to this checkout.
"""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
ATTEMPTS = Path(__file__).with_name("attempts.py")
PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "mount")
START_SECONDS = 10.0


@dataclass(frozen=True)
class User:
    """A user that needs no name: numbers that no account of the machine has."""

    number: int
    groups: tuple[int, ...] = ()


@dataclass
class Zone:
    """A network namespace. As it begins it holds nothing but a loopback interface that is down."""

    keeper: "subprocess.Popen[bytes]"

    @classmethod
    def make(cls) -> "Zone":
        """Make one and wait until it stands."""
        zone = cls(subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL))
        until = time.monotonic() + START_SECONDS
        while network_of(zone.keeper.pid) == network_of(os.getpid()):
            assert zone.keeper.poll() is None, "unshare --net was refused"
            assert time.monotonic() < until, "no network namespace was made"
            time.sleep(0.01)
        return zone

    def ip(self, words: str) -> None:
        """Run `ip` in it."""
        subprocess.run([*self.entered(), "ip", *words.split()], check=True)

    def entered(self) -> list[str]:
        """Return how a command line that runs in it begins."""
        return ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net", "--"]

    def close(self) -> None:
        """Let it go; the kernel takes it away with its last process."""
        self.keeper.kill()
        self.keeper.wait()


def network_of(process: int) -> str:
    """Return the name of a process's network namespace."""
    return str(Path(f"/proc/{process}/ns/net").readlink())


def connect(one: Zone, its_address: str, other: Zone, other_address: str) -> None:
    """Lay a cable between two zones; each reaches the other's address and, without a route, nothing behind it."""
    one.ip(f"link add name cable0 type veth peer name cable1 netns {other.keeper.pid}")
    for zone, name, address in ((one, "cable0", its_address), (other, "cable1", other_address)):
        zone.ip(f"address add {address} dev {name}")
        zone.ip(f"link set {name} up")


def missing(*more: str) -> str | None:
    """Return what keeps this process from building walls (with more programs), and the remedy; None if nothing does."""
    if os.getuid() != 0:
        return "Only root can make users and network namespaces: run `make test-all` as root, in a throw-away machine."
    lacking = [program for program in (*PROGRAMS, *more) if shutil.which(program) is None]
    if lacking:
        return f"{', '.join(lacking)} cannot be found. Run `make walls` (apt-get install iproute2 util-linux mount)."
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return (
            f"The kernel refuses namespaces here: {probe.stderr.strip()}. Run in a machine or a privileged container."
        )
    return None


def only_what_is_needed() -> str:
    """Return the shell commands that open a way to Python and to this checkout through folders closed to others."""
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), CHECKOUT}
    closed: dict[Path, list[Path]] = {}
    for path in sorted(needed):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(folder, []).append(path)
                break
    lines = []
    for folder, paths in closed.items():
        lines += ["hold=$(mktemp -d)", "mount -t tmpfs -o mode=755 tmpfs $hold"]
        for number, path in enumerate(paths):
            lines += [f"mkdir $hold/{number}", f"mount --rbind {shlex.quote(str(path))} $hold/{number}"]
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(folder))}"]
        for number, path in enumerate(paths):
            quoted = shlex.quote(str(path))
            lines += [f"mkdir -p {quoted}", f"mount --rbind $hold/{number} {quoted}"]
        lines += ["umount --recursive --lazy $hold", "rmdir $hold"]
    return "\n".join(["set -e", "umask 022", *lines, 'exec "$@"'])


def as_user(user: User) -> list[str]:
    """Return how a command line begins that gives up root for good."""
    groups = ",".join(map(str, user.groups))
    return [
        *("setpriv", f"--reuid={user.number}", f"--regid={user.number}"),
        *([f"--groups={groups}"] if groups else ["--clear-groups"]),
        *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
    ]


@dataclass
class Walled:
    """Starts commands in a zone as a user, and ends them all."""

    logs: Path
    environment: Mapping[str, str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def command(self, zone: Zone, user: User, words: Sequence[str]) -> list[str]:
        """Return the whole command line."""
        view = ["unshare", "--mount", "--propagation", "private", "sh", "-c", only_what_is_needed(), "view"]
        return [*zone.entered(), *view, *as_user(user), *words]

    def run(self, zone: Zone, user: User, words: Sequence[str], stdin: str = "", **variables: str) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            self.command(zone, user, words),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**self.environment, **variables},
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, role: str, zone: Zone, user: User, words: Sequence[str]) -> None:
        """Start a command that stays up; its log is ROLE.log."""
        with (self.logs / f"{role}.log").open("ab") as log:
            self.running[role] = subprocess.Popen(
                self.command(zone, user, words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(self.environment),
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not _stands(self.running[role].pid, user):
            assert self.running[role].poll() is None, self.log(role)
            assert time.monotonic() < until, f"{role} does not get behind its walls"
            time.sleep(0.01)

    def log(self, role: str) -> str:
        """Return what a process has printed."""
        return (self.logs / f"{role}.log").read_text(encoding="utf-8", errors="replace")

    def in_the_place_of(self, role: str, *attempts: tuple[str, str] | tuple[str, str, int]) -> list[str]:
        """Attempt things exactly where a running process stands: its namespaces, its user, its groups."""
        process = self.running[role]
        assert process.poll() is None, self.log(role)
        user = user_of(process.pid)
        enter = ["nsenter", "--target", str(process.pid), "--net", "--mount", "--"]
        words = [sys.executable, "-I", "-S", str(ATTEMPTS), json.dumps(attempts)]
        done = subprocess.run([*enter, *as_user(user), *words], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        answers: list[str] = json.loads(done.stdout)
        return answers

    def stop(self) -> None:
        """End everything that was started, the last first."""
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


def _stands(process: int, user: User) -> bool:
    """Tell whether a process has given up root and become its own program."""
    try:
        return user_of(process) == user and Path(f"/proc/{process}/comm").read_text().strip() != "setpriv"
    except (OSError, ValueError):
        return False


def user_of(process: int) -> User:
    """Return as whom a process runs, read from the kernel."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    (number,) = set(fields["Uid"])
    return User(int(number), tuple(int(group) for group in fields["Groups"]))


def capabilities_of(process: int) -> set[str]:
    """Return the capability sets of a process that are not empty."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    found = (line.partition(":")[::2] for line in lines if line.startswith("Cap"))
    return {name for name, value in found if int(value, 16)}
