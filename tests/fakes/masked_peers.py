"""The other members of a masked round, and the hub between them, for tests of one gate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocol.digest import digest_of_bytes
from protocol.message import Message
from protocol.messages import RoundTask, TaskKind, UpdateNotice
from protocol.metrics import ScoreHistograms, noise_variance_of
from protocol.secure_aggregation.histograms import bins_of
from protocol.secure_aggregation.key_agreement import seal
from protocol.secure_aggregation.roster import Roster, roster_of
from protocol.secure_aggregation.secret_sharing import split_secret
from protocol.secure_aggregation.vector import VectorTerms, vector_terms
from protocol.secure_messages import (
    MaskedHistograms,
    MaskedKind,
    MaskingDelivery,
    MaskingKeys,
    MaskingProof,
    MaskingRoster,
    MaskingSurvivors,
    SurvivorsSeen,
    digest_of_names,
)
from protocol.signing import SigningKey, sign
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from site_node.candidate import Candidate, write_candidate
from site_node.governance.masking_records import masked_round
from site_node.governance.peers import write_peers
from site_node.governance.records import open_records
from tests.fakes.gated_site import BASE_MANIFEST, GatedSite, study_of
from tests.protocol.secure_aggregation.members import Member

OWN = "st-anna"
PEERS = ("bela", "clara", "dora", "emil")
EVERYBODY = tuple(sorted((*PEERS, OWN)))
VALUES = tuple(range(-4, 5))


def masked_study() -> StudySpec:
    return study_of(
        participants={"minimum_sites": 4, "training_patients": 100},
        transport={"upload": []},
        secure_aggregation={"method": "masking", "maximum_sites": 5, "maximum_weight": 100},
    )


@dataclass
class MaskedPeers:
    """Four honest peers and an honest hub; tests make them lie."""

    site: GatedSite
    study: StudySpec = field(default_factory=masked_study)
    number: int = 1
    task_kind: MaskedKind = "train"
    members: dict[str, Member] = field(default_factory=lambda: {name: Member.named(name) for name in PEERS})
    counts: dict[HeldOutSplit, ScoreHistograms] = field(default_factory=dict)
    identities: dict[str, SigningKey] = field(default_factory=lambda: {name: SigningKey.generate() for name in PEERS})

    @property
    def task(self) -> RoundTask:
        return self.site.task(self.study, self.number, TaskKind(self.task_kind))

    @property
    def answer(self) -> type[Message]:
        """Return the kind of message that the task is answered with."""
        return UpdateNotice if self.task_kind == "train" else MaskedHistograms

    @property
    def terms(self) -> VectorTerms:
        return vector_terms(self.study, BASE_MANIFEST.parameters)

    def pin(self) -> None:
        write_peers(self.site.paths, {name: key.public for name, key in self.identities.items()})

    def join(self) -> None:
        """Bring the site to the first phase: study approved, task accepted, keys sent."""
        self.pin()
        self.site.join(self.study)
        self.site.give(self.task)

    def own(self, kind: type[Message]) -> list[Any]:
        """Return what the gate sent of a kind."""
        return [message for message in self.site.sent() if isinstance(message, kind)]

    def kinds_sent(self) -> list[str]:
        """Return the kinds of all that the gate sent in the round, in order."""
        return [kind for message in self.site.sent() if (kind := type(message).__name__) != "Approval"]

    def secrets(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the gate's channel key, mask key and seed of the round; None once they are erased."""
        known = masked_round(open_records(self.site.paths), self.study.digest, self.number, self.task_kind)
        assert known is not None
        return known.channel_key, known.mask_key, known.seed

    def keys(self, name: str) -> MaskingKeys:
        if name == OWN:
            found: MaskingKeys = next(
                keys for keys in self.own(MaskingKeys) if (keys.round, keys.task_kind) == (self.number, self.task_kind)
            )
            return found
        member = self.members[name]
        return member.keys(self.number).model_copy(
            update={
                "study_digest": self.study.digest,
                "task_id": f"tiny-{self.number}-{name}",
                "task_kind": self.task_kind,
            }
        )

    @property
    def roster(self) -> Roster:
        return roster_of(self.keys(name) for name in EVERYBODY)

    def signed(self, name: str, message: Message) -> str:
        key = SigningKey.load_or_create(self.site.paths.identity_key) if name == OWN else self.identities[name]
        return sign(message.canonical_bytes(), key).decode()

    def roster_message(self, names: Sequence[str] = EVERYBODY, **replaced: str) -> MaskingRoster:
        envelopes = [replaced.get(name.replace("-", "_")) or self.signed(name, self.keys(name)) for name in names]
        return MaskingRoster(
            study_digest=self.study.digest, round=self.number, task_kind=self.task_kind, members=envelopes
        )

    def delivery(self, senders: Sequence[str] = PEERS) -> MaskingDelivery:
        roster = self.roster
        sealed = {}
        for name in senders:
            member, points = self.members[name], [roster.point(other) for other in roster.names]
            pair = [split_secret(secret, roster.threshold, points) for secret in (member.seed, member.mask)]
            content = b"".join(shares[roster.point(OWN)] for shares in pair)
            sealed[name] = seal(member.channel, roster, name, OWN, content).hex()
        return MaskingDelivery(
            study_digest=self.study.digest,
            round=self.number,
            task_kind=self.task_kind,
            roster_digest=roster.digest,
            sealed=sealed,
        )

    def survivors(self, names: Sequence[str] = EVERYBODY) -> MaskingSurvivors:
        return MaskingSurvivors(
            study_digest=self.study.digest,
            round=self.number,
            task_kind=self.task_kind,
            roster_digest=self.roster.digest,
            survivors=sorted(names),
        )

    def seen(self, name: str, survivors: Sequence[str] = EVERYBODY, members: Sequence[str] = EVERYBODY) -> str:
        return self.signed(
            name,
            SurvivorsSeen(
                site=name,
                task_id=f"tiny-{self.number}-{name}",
                study_digest=self.study.digest,
                round=self.number,
                task_kind=self.task_kind,
                roster_digest=self.roster.digest,
                members_digest=digest_of_names(members),
                survivors_digest=digest_of_names(survivors),
            ),
        )

    def proof(
        self,
        signers: Sequence[str] = PEERS,
        survivors: Sequence[str] = EVERYBODY,
        members: Sequence[str] = EVERYBODY,
    ) -> MaskingProof:
        return MaskingProof(
            study_digest=self.study.digest,
            round=self.number,
            task_kind=self.task_kind,
            roster_digest=self.roster.digest,
            seen=[self.seen(name, survivors, members) for name in signers],
        )

    def hand_over(self, values: Sequence[int] = VALUES) -> None:
        """Hand over the integers of training, as the worker does."""
        data = self.terms.ring.encode(np.array(values)).tobytes()
        task = self.task
        candidate = Candidate(
            task_id=task.task_id,
            task_digest=digest_of_bytes(task.canonical_bytes()),
            kind="update",
            payload_digest=digest_of_bytes(data),
            payload_bytes=len(data),
            manifest_digest=BASE_MANIFEST.digest,
            steps=[*self.terms.steps],
        )
        write_candidate(self.site.paths, candidate, data)

    def hand_over_counts(self, seed: int = 0, patients: int = 10, splits: Sequence[HeldOutSplit] | None = None) -> None:
        """Hand over the counts of an evaluation, as the worker does."""
        rng = np.random.default_rng(seed)
        self.counts = {
            split: ScoreHistograms.from_scores(rng.random(patients), rng.integers(0, 2, patients), bins_of(self.study))
            for split in (self.study.evaluation.splits if splits is None else splits)
        }
        variance = noise_variance_of(self.study.evaluation.noise_epsilon)
        self.counts = {s: h.model_copy(update={"noise_variance": variance}) for s, h in self.counts.items()}
        candidate = Candidate(
            task_id=self.task.task_id,
            task_digest=digest_of_bytes(self.task.canonical_bytes()),
            kind="evaluation",
            histograms=self.counts,
        )
        write_candidate(self.site.paths, candidate)

    def hand_over_any(self, *, other: bool = False) -> None:
        """Hand over what the task asks for; `other` is what another run might have made."""
        if self.task_kind == "evaluate":
            self.hand_over_counts(int(other))
        else:
            self.hand_over([-value for value in VALUES] if other else VALUES)

    def say(self, message: Message) -> None:
        self.site.post(message)
        self.site.sweep()
