"""The audit log: every way of rewriting it is found, also by somebody who has only the file."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.audit.checkpoint import signed_head
from hub.audit.log import append
from hub.audit.merkle import inclusion_proof, leaf_hash, node_hash, root_from_inclusion, root_of
from hub.audit.verify import Entry, read_sqlite, verify_entries
from hub.services import Services
from hub.storage import audit_stores
from protocol.signing import SigningKey

# Root hashes of the seven first trees of the Certificate Transparency reference implementation.
CT_LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    bytes(range(0x60, 0x70)),
]
CT_ROOT_OF_ALL = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.fixture
def entries(services: Services) -> list[Entry]:
    with services.transaction() as session:
        for number in range(5):
            append(session, float(number), "hub", "thing.done", f"thing-{number}", {"number": number})
    with services.reading() as session:
        return list(audit_stores.stream(session))


def test_the_tree_is_that_of_rfc_6962() -> None:
    assert root_of([leaf_hash(leaf) for leaf in CT_LEAVES]).hex() == CT_ROOT_OF_ALL
    assert root_of([]) == hashlib.sha256(b"").digest()


def test_two_leaves_by_hand() -> None:
    left, right = hashlib.sha256(b"\x00a").digest(), hashlib.sha256(b"\x00b").digest()
    assert root_of([leaf_hash(b"a"), leaf_hash(b"b")]) == hashlib.sha256(b"\x01" + left + right).digest()


@given(size=st.integers(1, 70), data=st.data())
def test_an_inclusion_proof_leads_to_the_root_and_from_another_leaf_elsewhere(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(b"%d" % n) for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(leaves, index)
    assert root_from_inclusion(leaves[index], index, size, path) == root_of(leaves)
    assert root_from_inclusion(leaf_hash(b"other"), index, size, path) != root_of(leaves)
    assert root_from_inclusion(leaves[index], index, size, [*path, leaves[0]]) != root_of(leaves)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    a, b = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(a + b) != node_hash(a, b)


def test_the_log_as_written_is_in_order(entries: list[Entry]) -> None:
    verdict = verify_entries(entries)
    assert (verdict.ok, verdict.entries, verdict.problem) == (True, 5, None)


def test_an_entry_is_canonical_json_and_says_who_did_what(entries: list[Entry]) -> None:
    entry = json.loads(entries[2][1])
    assert entry["actor"] == "hub"
    assert entry["details"] == {"number": 2}
    assert entry["number"] == 3


def test_a_changed_entry_is_found(entries: list[Entry]) -> None:
    number, data, digest, chain = entries[2]
    entries[2] = (number, data.replace(b"thing-2", b"thing-9"), digest, chain)
    verdict = verify_entries(entries)
    assert (verdict.ok, verdict.entries) == (False, 2)
    assert verdict.problem == "Entry 3 was changed: its bytes do not have its hash."


def test_an_entry_changed_together_with_its_hash_is_found(entries: list[Entry]) -> None:
    number, data, _, chain = entries[2]
    forged = data.replace(b"thing-2", b"thing-9")
    entries[2] = (number, forged, "sha256:" + leaf_hash(forged).hex(), chain)
    assert "does not link" in str(verify_entries(entries).problem)


def test_a_removed_entry_is_found(entries: list[Entry]) -> None:
    assert verify_entries(entries[:2] + entries[3:]).problem == "Entry 3 is missing: after 2 comes 4."


def test_exchanged_entries_are_found(entries: list[Entry]) -> None:
    a, b = entries[1], entries[2]
    entries[1], entries[2] = (a[0], *b[1:]), (b[0], *a[1:])
    assert not verify_entries(entries).ok


def test_a_log_rewritten_from_the_start_is_found_by_a_kept_head(services: Services, entries: list[Entry]) -> None:
    with services.reading() as session:
        head = signed_head(session, services)["envelope"].encode()
    assert verify_entries(entries, head, services.key.public).ok
    rewritten, chain = [], bytes(32)
    for number, data, _, _ in entries:
        forged = data.replace(b"thing-0", b"thing-9")
        chain = hashlib.sha256(chain + leaf_hash(forged)).digest()
        rewritten.append((number, forged, "sha256:" + leaf_hash(forged).hex(), "sha256:" + chain.hex()))
    assert verify_entries(rewritten).ok
    assert "rewritten" in str(verify_entries(rewritten, head, services.key.public).problem)
    assert "cut off" in str(verify_entries(entries[:4], head, services.key.public).problem)
    assert "not a head" in str(verify_entries(entries, head, SigningKey.generate().public).problem)


def test_the_file_can_be_checked_without_the_service(services: Services, entries: list[Entry]) -> None:
    path = services.settings.dir / "hub.sqlite"
    assert list(read_sqlite(path)) == entries
    command = [sys.executable, "-m", "hub.audit.verify", str(path)]
    sound = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (sound.returncode, json.loads(sound.stdout)["entries"]) == (0, 5)
    tamper(path)
    broken = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (broken.returncode, json.loads(broken.stdout)["ok"]) == (1, False)


def tamper(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update audit set entry = replace(entry, 'thing-2', 'thing-9') where number = 3")
        connection.commit()
