"""The audit of a study's claim: one real training with canaries, three attackers, and what each refutes.

The training is the site's own (`training/trainer.py`): the study's Poisson sampling, clipping, noise from the
accountant, over all steps that a site can be asked for. It is taken one step at a time, because the claim holds against
somebody who sees each step; plain SGD, because whatever an optimiser makes of a noised gradient is post-processing.
Neighbouring data is the accountant's: a canary that is out is replaced by nothing, while the number that divides the
sum stays the public one.

Attackers, strongest first; the claim is held against each, and the first is the one to quote:
    every step     each step's noised sum
    every round    each round's update, as a hub has it
    last version   the final model alone, by its losses

Nothing leaves the hospital: no message, no update, no entry in a ledger. The noise is drawn from the audit's seed, so
that an audit can be repeated; it protects nobody, and nothing that it noised may be shown.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from protocol.digest import canonical_json
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.errors import OrderError
from site_node.privacy.noise import NoiseSource
from site_node.privacy_audit.attacks import GradientAttack, Persons, Released, losses_of_canaries
from site_node.privacy_audit.canaries import Canaries, make_canaries, with_canaries
from site_node.privacy_audit.one_run_bound import Guesses, epsilon_lower_bound, guess
from site_node.training.networks import initial_weights
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train

SCHEMA = "wardround.privacy-audit/1"
CANARIES = 600
GUESSED_FRACTION = 0.1
"""Of the canaries, this fraction is called in and as many are called out; the rest are abstained on."""
SEED = 0
MAX_GRADIENT_VALUES = 500_000_000
Report = Callable[[float], None]


@dataclass(frozen=True)
class Finding:
    """What one attacker found."""

    attacker: str
    guesses: Guesses
    lower_bound: float


@dataclass(frozen=True)
class AuditedRun:
    """One training with canaries; `accounted` is the accountant's epsilon, at most the claimed; None: DP off."""

    claimed: float | None
    accounted: float | None
    noise_multiplier: float | None
    included: int
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def measured(self) -> float:
        """Return the strongest attacker's lower bound of epsilon."""
        return self.findings[0].lower_bound

    @property
    def holds(self) -> bool:
        """Return whether no attacker refuted the claim; without a claim there is none to refute."""
        return self.claimed is None or all(finding.lower_bound < self.claimed for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """Return the run for JSON."""
        return {
            "claimed_epsilon": self.claimed,
            "accounted_epsilon": self.accounted,
            "noise_multiplier": self.noise_multiplier,
            "included_canaries": self.included,
            "lower_bound": round(self.measured, 4),
            "holds": self.holds,
            "attackers": [
                {
                    "name": f.attacker,
                    "guesses": f.guesses.made,
                    "right": f.guesses.right,
                    "lower_bound": round(f.lower_bound, 4),
                }
                for f in self.findings
            ],
            "seconds": round(self.seconds, 1),
        }


def audited_study(study: StudySpec, epsilon: float | None, public_patients: int) -> StudySpec:
    """Return the study with this epsilon, trained one plain step at a time; the steps' number and sampling stay.

    Raises: SpecificationError if the claim is illegal for so many patients; OrderError for another mechanism.
    """
    if study.privacy.mechanism != "dp-sgd":
        raise OrderError(
            f"The audit trains as one site does; {study.privacy.mechanism!r} is a mechanism of many sites.",
            "Audit the study with privacy.mechanism: dp-sgd.",
        )
    document = study.model_dump(mode="json", by_alias=True)
    document["privacy"] |= {"epsilon": epsilon, "spare_tasks": 0, "allow_large_delta": "canaries are no patients"}
    document["privacy"]["count_epsilon"] = None  # the number that divides stays the public one, told or not
    document["privacy"]["receipt_epsilon"] = None  # nor does the attack read receipts
    document["participants"]["training_patients"] = public_patients
    document["preprocessing"]["augmentation"] = "none"
    document["rounds"] = study.maximum_steps
    document["evaluation"] = {"every": study.maximum_steps}
    # What is made of noised sums is not audited, nor noised figures, which are mechanisms of their own.
    for later in ("strategy", "transport", "secure_aggregation", "personal", "site_rates"):
        document.pop(later, None)
    document["training"] |= {
        "local_steps": 1, "local_epochs": None, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0,
        "schedule": "constant", "warm_up_rounds": 0, "proximal": 0.0,
    }  # fmt: skip
    return parse_study(document)


def audit(
    study: StudySpec,
    patients: PreparedPatients,
    epsilon: float | None,
    *,
    canaries: int = CANARIES,
    seed: int = SEED,
    report: Report = lambda fraction: None,
) -> AuditedRun:
    """Train once with canaries and return what the attackers can refute of (epsilon, the study's delta).

    Guarantee: deterministic for the seed on one machine with one number of threads. A claim that is true is refuted by
        one attacker with probability at most 5 %.
    Raises: SpecificationError or OrderError as `audited_study`; OrderError if the canaries would fill the memory.
    """
    started = time.monotonic()
    own = make_canaries(study, canaries, seed)
    plain = audited_study(study, epsilon, patients.patients + canaries)
    released = Released(plain, noise_multiplier_of(plain), patients.patients + canaries)
    persons = _persons(patients, own)
    _refuse_too_many(plain, persons)
    findings = _attacked(released, study.local_steps, patients, own, persons, seed, report)
    return AuditedRun(
        claimed=epsilon,
        accounted=_accounted(released),
        noise_multiplier=released.noise_multiplier,
        included=int(own.included.sum()),
        findings=findings,
        seconds=time.monotonic() - started,
    )


def guesses_each_way(canaries: int) -> int:
    """Return how many canaries are called in, and how many are called out: fixed before anything is trained."""
    return round(GUESSED_FRACTION * canaries)


def _accounted(released: Released) -> float | None:
    if released.noise_multiplier is None:
        return None
    study = released.study
    return epsilon_of([training_event(study, released.noise_multiplier, study.rounds)], study.privacy.delta)


def _attacked(
    released: Released,
    steps_a_round: int,
    patients: PreparedPatients,
    canaries: Canaries,
    persons: Persons,
    seed: int,
    report: Report,
) -> tuple[Finding, ...]:
    by_step, by_round = GradientAttack(released, persons), GradientAttack(released, persons)
    before = round_began = initial_weights(released.study)
    for step, after in enumerate(_versions(released, before, with_canaries(patients, canaries), seed), start=1):
        by_step.observe(before, after)
        if step % steps_a_round == 0:
            by_round.observe(round_began, after, steps_a_round)
            round_began = after
        before = after
        report(step / released.study.rounds)
    scores = {
        "every step": by_step.scores(),
        "every round": by_round.scores(),
        "last version": -losses_of_canaries(released.study, before, persons),
    }
    each_way, delta = guesses_each_way(canaries.number), released.study.privacy.delta
    found = {name: guess(values, canaries.included, each_way, each_way) for name, values in scores.items()}
    return tuple(Finding(name, guesses, epsilon_lower_bound(guesses, delta)) for name, guesses in found.items())


def _versions(released: Released, base: Weights, trained_on: PreparedPatients, seed: int) -> Iterator[Weights]:
    # The trainer divides by the number of patients it is given, which counts the included canaries: that is no public
    # number. The learning rate takes it out again, so that the divisor is the public one.
    study = released.study
    rate = study.training.learning_rate * trained_on.patients / released.public_patients
    same_divisor = study.model_copy(update={"training": study.training.model_copy(update={"learning_rate": rate})})
    key = hashlib.sha256(canonical_json({"schema": SCHEMA, "seed": seed, "epsilon": study.privacy.epsilon})).digest()
    for number in range(1, study.rounds + 1):
        noise = NoiseSource(key, f"step {number} of an audit", "canaries")
        base = train(
            same_divisor,
            base,
            trained_on,
            noise,
            noise_multiplier=released.noise_multiplier,
            round_number=number,
        )
        yield base


def _persons(patients: PreparedPatients, canaries: Canaries) -> Persons:
    everybody = with_canaries(
        patients, Canaries(canaries.images, canaries.labels, np.ones(canaries.number, dtype=bool))
    )
    counts = np.diff(everybody.first_image)
    return Persons(
        images=everybody.pixels_of(np.arange(len(everybody.rows))),
        targets=torch.from_numpy(everybody.targets),
        owners=torch.from_numpy(np.repeat(np.arange(everybody.patients), counts)),
        patients=patients.patients,
        canaries=canaries.number,
    )


def _refuse_too_many(study: StudySpec, persons: Persons) -> None:
    values = persons.number * sum(array.size for array in initial_weights(study).values())
    if values > MAX_GRADIENT_VALUES:
        raise OrderError(
            f"{persons.number} gradients of this network are {values} numbers; at most {MAX_GRADIENT_VALUES} are held.",
            "Lower --canaries, or audit the study with a smaller network.",
        )
