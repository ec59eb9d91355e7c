"""Check an audit log without the service that wrote it, and without its code: only RFC 6962 and SHA-256.

Nothing is imported from `log.py` or the stores on purpose: a fault there must not hide itself here. What is checked for
each entry: its number follows the one before; its hash is the leaf hash of its bytes; its chain is SHA-256 of the
chain before it and its hash; its bytes say the same number. With a kept head (`checkpoint.py`): the hub signed it, and
the log up to its size has its root.

    python -m hub.audit.verify HUB/hub.sqlite [HEAD.json HUB_KEY_BASE64]
"""

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hub.audit.merkle import leaf_hash, root_of
from protocol.errors import ProtocolError
from protocol.signing import PublicKey, open_envelope

Entry = tuple[int, bytes, str, str]


@dataclass(frozen=True)
class Verdict:
    """What was found; `head` is the Merkle root of what was read, `problem` the first fault."""

    ok: bool
    entries: int
    head: str
    problem: str | None = None


def verify_entries(entries: Iterable[Entry], kept_head: bytes | None = None, key: PublicKey | None = None) -> Verdict:
    """Check entries (number, bytes, hash, chain) in order, and a kept signed head if there is one.

    Guarantee: any changed, removed (but from the end), added or exchanged entry is found; with a kept head also
        a log that was rewritten or cut from the beginning to the end.
    """
    chain = bytes(32)
    leaves: list[bytes] = []
    for number, data, written_hash, written_chain in entries:
        leaf = leaf_hash(data)
        chain = hashlib.sha256(chain + leaf).digest()
        problem = _problem_of(len(leaves) + 1, number, data, _text(leaf) == written_hash, _text(chain) == written_chain)
        if problem:
            return Verdict(False, len(leaves), _text(root_of(leaves)), problem)
        leaves.append(leaf)
    problem = None if kept_head is None else _problem_with_head(leaves, kept_head, key)
    return Verdict(problem is None, len(leaves), _text(root_of(leaves)), problem)


def read_sqlite(path: Path) -> Iterator[Entry]:
    """Yield the entries of a hub's SQLite file, or of a copy of it; the file is opened for reading only."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        # SQLite lets a forger change a column's type; whatever is there is checked as bytes.
        query = "select number, cast(entry as blob), hash, chain from audit order by number"
        yield from connection.execute(query)


def _problem_of(expected: int, number: int, data: bytes, hash_fits: bool, chain_fits: bool) -> str | None:
    if number != expected:
        return f"Entry {expected} is missing: after {expected - 1} comes {number}."
    if not hash_fits:
        return f"Entry {number} was changed: its bytes do not have its hash."
    if not chain_fits:
        return f"Entry {number} does not link to the entries before it: the log was rewritten at or before it."
    try:
        says = json.loads(data)["number"]
    except (ValueError, KeyError, TypeError):
        return f"Entry {number} is not an audit entry."
    return None if says == number else f"Entry {number} was moved: it says that it is number {says}."


def _problem_with_head(leaves: list[bytes], envelope: bytes, key: PublicKey | None) -> str | None:
    if key is None:
        return "A kept head can be checked only with the hub's public key."
    try:
        head = json.loads(open_envelope(envelope, key))
        size, root = int(head["size"]), str(head["root"])
    except (ProtocolError, ValueError, KeyError, TypeError):
        return "The kept head is not a head that this hub signed."
    if size > len(leaves):
        return f"The kept head is of {size} entries; the log has only {len(leaves)}: its end was cut off."
    if _text(root_of(leaves[:size])) != root:
        return f"The first {size} entries are not those of the kept head: the log was rewritten."
    return None


def _text(value: bytes) -> str:
    return "sha256:" + value.hex()


def main(arguments: list[str]) -> int:
    """Check a file given on the command line; the exit status is 0 only if all is well."""
    if len(arguments) not in (1, 3):
        sys.stderr.write("Usage: python -m hub.audit.verify HUB/hub.sqlite [HEAD.json HUB_KEY_BASE64]\n")
        return 2
    head = Path(arguments[1]).read_bytes() if len(arguments) == 3 else None
    key = PublicKey.from_text(arguments[2]) if len(arguments) == 3 else None
    verdict = verify_entries(read_sqlite(Path(arguments[0])), head, key)
    sys.stdout.write(json.dumps(verdict.__dict__) + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
