"""Who takes part in the masks of one round, with which keys: the same list at every site, and its digest.

The roster is the hub's list of the sites' own signed `MaskingKeys`, ordered by name. A site checks each signature with
the key that it has pinned for that name, so that the hub can neither invent a member nor stand between two. The digest
of the roster enters every derived key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.digest import digest_of
from protocol.errors import MaskingError, ProtocolError
from protocol.messages import expect
from protocol.secure_messages import MaskedKind, MaskingKeys
from protocol.signing import PublicKey, open_envelope, read_unverified

FEWEST_MEMBERS = 4


def threshold_of(members: int) -> int:
    """Return how many of so many sites are needed: floor(2n/3) + 1, which no two disjoint groups can reach."""
    return 2 * members // 3 + 1


@dataclass(frozen=True)
class Roster:
    """The members of one round's masks."""

    study_digest: str
    round: int
    task_kind: MaskedKind
    keys: Mapping[str, MaskingKeys]
    """By name, in the order of names."""
    digest: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the members in the order that signs of masks and points of shares follow."""
        return tuple(self.keys)

    @property
    def threshold(self) -> int:
        """Return how many members open a sum."""
        return threshold_of(len(self.keys))

    def point(self, name: str) -> int:
        """Return a member's point of the shared polynomials."""
        return self.names.index(name) + 1


def roster_of(members: Iterable[MaskingKeys]) -> Roster:
    """Return the roster of members whose keys were verified.

    Raises: MaskingError if there are fewer than four, one stands twice, two use one key, or they are not of one round.
    """
    listed = sorted(members, key=lambda keys: keys.site)
    names = [keys.site for keys in listed]
    if len(listed) < FEWEST_MEMBERS or len(set(names)) != len(names):
        raise MaskingError(f"A roster names at least {FEWEST_MEMBERS} sites, each once.")
    if len({(keys.study_digest, keys.round, keys.task_kind) for keys in listed}) != 1:
        raise MaskingError("The keys of a roster are not of one round of one study.")
    public = [key for keys in listed for key in (keys.channel_key, keys.mask_key)]
    if len(set(public)) != len(public):
        raise MaskingError("Two members of a roster use one key.")
    digest = digest_of([keys.model_dump(mode="json", by_alias=True) for keys in listed])
    first, keys_of = listed[0], {keys.site: keys for keys in listed}
    return Roster(first.study_digest, first.round, first.task_kind, keys_of, digest)


def open_roster(envelopes: Iterable[str], pinned: Mapping[str, PublicKey]) -> Roster:
    """Return the roster in the members' envelopes, each verified with the key pinned for its name.

    Raises: UnknownPeerError naming a member that is not pinned or did not sign; MaskingError for another fault.
    """
    members = []
    for envelope in envelopes:
        claimed = _keys_in(read_unverified(envelope.encode()))
        key = pinned.get(claimed.site)
        if key is None:
            raise UnknownPeerError(claimed.site, "has no pinned key here")
        try:
            members.append(_keys_in(open_envelope(envelope.encode(), key)))
        except ProtocolError as error:
            raise UnknownPeerError(claimed.site, "did not sign with the key that is pinned here") from error
    return roster_of(members)


class UnknownPeerError(MaskingError):
    """A member of a roster is not who this site knows by that name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"The site {name} {why}. Compare fingerprints with its administrator, then pin its key.")
        self.name = name


def _keys_in(payload: bytes) -> MaskingKeys:
    return expect(payload, MaskingKeys)
