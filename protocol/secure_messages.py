"""The messages of secure aggregation, in the order of a round. They are registered in `messages.py` with all others.

    site: MaskingKeys         my public keys of this round                   on accepting the task
    hub:  MaskingRoster       everybody's MaskingKeys, as signed             when all, or enough, are there
    site: MaskingShares       sealed shares of my two secrets, one a peer    after checking every signature
    hub:  MaskingDelivery     what your peers sealed for you                 its senders are whom masks are made with
    site: UpdateNotice        steps ... "masked", and the masked vector      the answer to a task to train
          MaskedHistograms    counts of held-out patients under masks        the answer to a task to evaluate
    hub:  MaskingSurvivors    whose vectors arrived                          the sum will be of these
    site: SurvivorsSeen       I saw this list, and no other
    hub:  MaskingProof        the signed lists of at least the threshold
    site: MaskingReveal       own-mask shares of survivors, mask-key shares of the lost; once

What leaves a hospital here: public keys, ciphertexts, names of sites, and shares of secrets that were drawn by chance
for this round alone. What depends on patients, a vector and `MaskedHistograms`, is under masks.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from protocol.digest import Digest, digest_of
from protocol.message import Message, RoundNumber
from protocol.study_parts import Name

MOST_MEMBERS = 4096

TaskId = Annotated[str, Field(max_length=200)]
PublicBytes = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes in hexadecimal: an X25519 public key, or a commitment."""
ShareText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{66}$")]
"""A share of 33 bytes in hexadecimal."""
SealedText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{188}$")]
"""Nonce (12 bytes), two shares (66) and tag (16) in hexadecimal."""
MaskedKind = Literal["train", "evaluate"]
"""Which of a round's tasks the masks are for; each has keys, members and survivors of its own."""
WORDS_OF_A_PIECE = 64
MOST_PIECES = 4096
Piece = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{512}$")]
"""64 masked words of 32 bits, little-endian, in hexadecimal."""
Names = Annotated[list[Name], Field(max_length=MOST_MEMBERS)]


class MaskedRoundMessage(Message):
    """Base: which masks of which round a message is about."""

    study_digest: Digest
    round: RoundNumber
    task_kind: MaskedKind = "train"


class SpokenMessage(MaskedRoundMessage):
    """Base: what a site says in a masked round, for its own task."""

    site: Name
    task_id: TaskId


class RosteredMessage(MaskedRoundMessage):
    """Base: what is said once the roster is known."""

    roster_digest: Digest


class MaskingKeys(SpokenMessage):
    """Site to hub, then to every site: my keys of this round. `seed_commitment` is of the own mask's seed."""

    schema_: Literal["wardround.masking-keys/1"] = Field(default="wardround.masking-keys/1", alias="schema")
    channel_key: PublicBytes
    mask_key: PublicBytes
    seed_commitment: PublicBytes


class MaskingRoster(MaskedRoundMessage):
    """Hub to site: the members' MaskingKeys in their own envelopes."""

    schema_: Literal["wardround.masking-roster/1"] = Field(default="wardround.masking-roster/1", alias="schema")
    members: Annotated[list[Annotated[str, Field(max_length=8192)]], Field(max_length=MOST_MEMBERS)]


class MaskingShares(SpokenMessage, RosteredMessage):
    """Site to hub: for every other member, the shares of my seed and of my mask key, sealed for it."""

    schema_: Literal["wardround.masking-shares/1"] = Field(default="wardround.masking-shares/1", alias="schema")
    sealed: dict[Name, SealedText]


class MaskingDelivery(RosteredMessage):
    """Hub to site: what the others sealed for it. The senders and the receiver are the round's masked members."""

    schema_: Literal["wardround.masking-delivery/1"] = Field(default="wardround.masking-delivery/1", alias="schema")
    sealed: dict[Name, SealedText]


class MaskingSurvivors(RosteredMessage):
    """Hub to site: the vectors of these members arrived and will be added; the other members are lost."""

    schema_: Literal["wardround.masking-survivors/1"] = Field(default="wardround.masking-survivors/1", alias="schema")
    survivors: Names


class SurvivorsSeen(SpokenMessage, RosteredMessage):
    """Site to hub, then to every survivor: I masked with these members, and this is the list of survivors I saw.

    Both lists stand as their digests, so that the words of hundreds of sites fit into one message.
    """

    schema_: Literal["wardround.survivors-seen/1"] = Field(default="wardround.survivors-seen/1", alias="schema")
    members_digest: Digest
    survivors_digest: Digest


def digest_of_names(names: Iterable[str]) -> str:
    """Return the digest of a list of sites, in the order of names."""
    return digest_of(sorted(names))


class MaskingProof(RosteredMessage):
    """Hub to site: `SurvivorsSeen` of at least the threshold, in their own envelopes."""

    schema_: Literal["wardround.masking-proof/1"] = Field(default="wardround.masking-proof/1", alias="schema")
    seen: Annotated[list[Annotated[str, Field(max_length=8192)]], Field(max_length=MOST_MEMBERS)]


class MaskingReveal(SpokenMessage, RosteredMessage):
    """Site to hub: shares of the survivors' seeds and of the lost members' mask keys; never both of one peer."""

    schema_: Literal["wardround.masking-reveal/1"] = Field(default="wardround.masking-reveal/1", alias="schema")
    seed_shares: dict[Name, ShareText]
    key_shares: dict[Name, ShareText]


class MaskedHistograms(SpokenMessage, RosteredMessage):
    """Site to hub: counts of held-out patients for one version under masks; the answer to a task to evaluate.

    Every bin of every split of the study, in an order that `secure_aggregation/histograms.py` fixes: the length depends
    on the study alone. `noise_epsilon` null says that no noise is in the counts.
    """

    schema_: Literal["wardround.masked-histograms/1"] = Field(default="wardround.masked-histograms/1", alias="schema")
    task_digest: Digest
    task_kind: MaskedKind = "evaluate"
    noise_epsilon: float | None
    words: Annotated[list[Piece], Field(max_length=MOST_PIECES)]


SECURE_HUB_TO_SITE: tuple[type[Message], ...] = (MaskingRoster, MaskingDelivery, MaskingSurvivors, MaskingProof)
SECURE_SITE_TO_HUB: tuple[type[Message], ...] = (
    MaskingKeys,
    MaskingShares,
    MaskedHistograms,
    SurvivorsSeen,
    MaskingReveal,
)
