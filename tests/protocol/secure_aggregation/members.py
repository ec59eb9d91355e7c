"""Members of a masked round with all their secrets, for tests of the arithmetic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.secure_aggregation.key_agreement import commitment_to, new_private_key, public_key_of
from protocol.secure_aggregation.masking import Opening, add_masks, masks_of_site, masks_on_sum
from protocol.secure_aggregation.ring import Ring
from protocol.secure_aggregation.roster import Roster, roster_of
from protocol.secure_aggregation.secret_sharing import split_secret
from protocol.secure_messages import MaskingKeys

STUDY = "sha256:" + "a" * 64


@dataclass(frozen=True)
class Member:
    """One site's secrets of a round."""

    name: str
    channel: bytes
    mask: bytes
    seed: bytes

    @classmethod
    def named(cls, name: str) -> "Member":
        return cls(name, new_private_key(), new_private_key(), new_private_key())

    def keys(self, number: int = 1) -> MaskingKeys:
        return MaskingKeys(
            site=self.name,
            task_id=f"tiny.r{number}.{self.name}.train",
            study_digest=STUDY,
            round=number,
            channel_key=public_key_of(self.channel).hex(),
            mask_key=public_key_of(self.mask).hex(),
            seed_commitment=commitment_to(self.seed),
        )


def members_of(count: int) -> list[Member]:
    return [Member.named(f"site-{number:03d}") for number in range(count)]


def roster_for(members: list[Member]) -> Roster:
    return roster_of([member.keys() for member in members])


def masked(roster: Roster, masked_members: list[Member], member: Member, vector: Any, ring: Ring) -> NDArray[Any]:
    names = [other.name for other in masked_members]
    return add_masks(vector, masks_of_site(roster, names, member.name, member.seed, member.mask), ring)


def shares_of(roster: Roster, secret: bytes, holders: list[str]) -> dict[str, bytes]:
    points = [roster.point(name) for name in roster.names]
    split = split_secret(secret, roster.threshold, points)
    return {name: split[roster.point(name)] for name in holders}


def unmasked(roster: Roster, opening: Opening, total: NDArray[Any], ring: Ring) -> NDArray[np.int64]:
    return ring.decode(add_masks(total, masks_on_sum(roster, opening), ring))
