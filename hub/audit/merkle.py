"""The Merkle tree of RFC 6962 over the audit entries: leaf hashes, root, inclusion and consistency proofs. Pure.

Source: RFC 6962 (Certificate Transparency), section 2.1. A leaf's hash is SHA-256 of 0x00 and its bytes, a node's of
0x01 and its two children: no leaf can pass for a node. Convention: hashes here are 32 raw bytes.
"""

import hashlib
from collections.abc import Sequence

Hash = bytes


def leaf_hash(entry: bytes) -> Hash:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return the hash of two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[Hash]) -> Hash:
    """Return the tree head of the leaf hashes; of none, the hash of nothing (RFC 6962, 2.1)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


def inclusion_proof(leaves: Sequence[Hash], index: int) -> list[Hash]:
    """Return the audit path of a leaf, counted from 0 (RFC 6962, 2.1.1).

    Raises: IndexError if there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"The tree has {len(leaves)} leaves; there is no leaf {index}.")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_of(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split])]


def root_from_inclusion(leaf: Hash, index: int, size: int, path: Sequence[Hash]) -> Hash | None:
    """Return the root that a leaf and its audit path lead to, or None if the path has the wrong length."""
    if size == 1:
        return leaf if index == 0 and not path else None
    if not path or not 0 <= index < size:
        return None
    split = _split(size)
    if index < split:
        left = root_from_inclusion(leaf, index, split, path[:-1])
        return None if left is None else node_hash(left, path[-1])
    right = root_from_inclusion(leaf, index - split, size - split, path[:-1])
    return None if right is None else node_hash(path[-1], right)


def _split(size: int) -> int:
    """Return the largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)
