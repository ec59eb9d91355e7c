"""A hospital as the hub sees it: two keys, signed messages, and nothing behind them."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt

from protocol.digest import digest_of_bytes
from protocol.message import Message
from protocol.messages import PROTOCOL_VERSION, Approval, Enrolment, LedgerCharge, LedgerHead
from protocol.noised_counts import figure_events
from protocol.privacy_accounting import histogram_event, noise_multiplier_of, training_events
from protocol.signing import SigningKey, sign
from protocol.study import StudySpec


@dataclass
class Hospital:
    """Speaks to a hub through an httpx client; `clock` is its own."""

    name: str
    clock: Any
    identity: SigningKey = field(default_factory=SigningKey.generate)
    transport: SigningKey = field(default_factory=SigningKey.generate)
    head: LedgerHead | None = None

    def enrolment(self, code: str) -> bytes:
        message = Enrolment(
            site=self.name,
            code=code,
            identity_key=self.identity.public.text,
            transport_key=self.transport.public.text,
            protocol_version=PROTOCOL_VERSION,
        )
        return sign(message.canonical_bytes(), self.identity)

    def assertion(self, **changes: Any) -> str:
        now = int(self.clock())
        claims = {"iss": self.name, "sub": self.name, "aud": "wardround-hub", "iat": now, "exp": now + 300, "jti": "1"}
        return jwt.encode({**claims, **changes}, self.transport.private, algorithm="EdDSA")

    def sign_in(self, client: httpx.Client) -> dict[str, str]:
        """Return the headers of a signed-in site."""
        answer = client.post("/v1/token/site", json={"assertion": self.assertion()})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def signed(self, message: Message) -> bytes:
        return sign(message.canonical_bytes(), self.identity)

    def approval(self, digest: str, decision: Any = "approved", patients: int = 40, **more: Any) -> Approval:
        return Approval(site=self.name, study_digest=digest, decision=decision, training_patients=patients, **more)

    def charge(self, study: StudySpec, **changes: Any) -> LedgerCharge:
        """Charge the hospital's ledger with the planned maximum of a study that noises something."""
        noise = noise_multiplier_of(study)
        number = 1 if self.head is None else self.head.number + 1
        tasks, bare = study.maximum_training_tasks, figure_events(study)
        charged = {"training": bare if noise is None else training_events(study, noise, tasks)}
        if study.evaluation.noise_epsilon is not None:
            charged["held-out"] = [histogram_event(study.evaluation.noise_epsilon, study.maximum_training_tasks + 1)]
        fields: dict[str, Any] = {
            "site": self.name,
            "study_digest": study.digest,
            "number": number,
            "chain": digest_of_bytes(f"{self.name} {number}".encode()),
            "follows": self.head,
            "delta": study.privacy.delta,
            "charged": charged,
            "unprotected": noise is None,
        }
        charge = LedgerCharge.model_validate({**fields, **changes})
        self.head = charge.head
        return charge
