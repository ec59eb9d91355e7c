"""A round's local training with what its algorithm keeps at the site, from version to update.

    FedBN      start: the version with this site's own tensors; their difference leaves as zero
    SCAFFOLD   each step is corrected by c - c_i; c_i follows from the update
    Ditto      beside it, a personal model is trained; the update does not know of it

What is kept (`local_state.py`) is stored before anything is handed over, under the round's number and as a function of
the task alone, so that a round that is killed and repeated ends with the same state and the same update; from its last
checkpoint on, where there is one (`checkpoints.py`), of each of its two passes.
"""

from dataclasses import dataclass

import structlog

from protocol.digest import digest_of_bytes
from protocol.study import StudySpec
from protocol.tensors import Weights, weights_file
from site_node.errors import NotFiniteError
from site_node.orders import WorkOrder
from site_node.privacy.noise import NoiseSource
from site_node.training.checkpoints import Checkpoints, PassCheckpoint
from site_node.training.corrections import CONTROL, Correction, next_control, scaffold
from site_node.training.local_state import LocalState
from site_node.training.personal import (
    DIVERGED,
    OWN,
    kept_tensors,
    own_part,
    personal_start,
    rounds_kept,
    with_own,
    without_own,
)
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.processes import ALONE, Together
from site_node.training.trainer import Report, train
from site_node.update.steps import difference

ROUND_PASS, PERSONAL_PASS = "round", "personal"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Round:
    """All that a round's training works with; `control` is SCAFFOLD's control variate of all sites.

    `checkpoints` is where a training that was killed goes on; None: it begins anew.
    """

    study: StudySpec
    base: Weights
    patients: PreparedPatients
    noise: NoiseSource
    order: WorkOrder
    report: Report
    state: LocalState
    control: Weights | None = None
    together: Together = ALONE
    checkpoints: Checkpoints | None = None

    def trained(self, start: Weights, correction: Correction | None, report: Report, name: str = ROUND_PASS) -> Weights:
        """Take the round's steps from these weights; see `train`. `name`: of the pass, for its checkpoint."""
        return train(
            self.study,
            start,
            self.patients,
            self.noise,
            noise_multiplier=self.order.noise_multiplier,
            round_number=self.order.round,
            rate_factor=self.order.rate_factor,
            correction=correction,
            together=self.together,
            checkpoint=self.checkpoint(name, start, correction),
            report=report,
        )

    def checkpoint(self, name: str, start: Weights, correction: Correction | None = None) -> PassCheckpoint | None:
        """Return a pass's checkpoint, which belongs to the weights that it starts from and to what is added there."""
        if self.checkpoints is None:
            return None
        added = Correction() if correction is None else correction
        tensors = {"start": start, "towards": added.towards, "shift": added.shift}
        digests = {key: _digest_of(weights) for key, weights in tensors.items()}
        return self.checkpoints.of_pass(name, pull=repr(added.pull), **digests)


def train_locally(training: Round) -> Weights:
    """Train a round and return the update as it leaves, a difference of weights before compression and rounding.

    Raises: what `train` raises; UnknownTensorError if the study keeps tensors that the network does not have.
    """
    is_scaffold = training.study.strategy.name == "scaffold"
    update = _scaffold_update(training) if is_scaffold else _update(training)
    if training.study.personal.ditto is not None:
        _train_beside(training, training.study.personal.ditto)
    return update


def _update(training: Round) -> Weights:
    state, kept = training.state, kept_tensors(training.study)
    start = with_own(training.base, state.before(OWN)) if kept else training.base
    trained = training.trained(start, None, _first_part(training))
    if kept:
        state.keep(OWN, own_part(trained, kept), rounds_kept(training.study))
    return without_own(difference(start, trained), kept)


def _scaffold_update(training: Round) -> Weights:
    state, common = training.state, training.control
    own = state.before(CONTROL)
    trained = training.trained(training.base, scaffold(common, own), _first_part(training))
    update = difference(training.base, trained)
    state.keep(CONTROL, next_control(training.study, training.order.round, common, own, update))
    return update


def _train_beside(training: Round, pull: float) -> None:
    """Train Ditto's personal model; one that diverged begins again at the next version and stops nobody."""
    start = personal_start(training.base, training.state.before(OWN))
    correction = Correction(pull, towards=training.base)
    try:
        trained = training.trained(start, correction, lambda done: training.report(0.5 + done / 2), PERSONAL_PASS)
    except NotFiniteError:
        _log.warning("personal_model_diverged", study=training.study.name, round=training.order.round)
        trained = DIVERGED
    training.state.keep(OWN, trained, rounds_kept(training.study))


def _digest_of(weights: Weights | None) -> str:
    return "none" if weights is None else digest_of_bytes(weights_file(weights))


def _first_part(training: Round) -> Report:
    """Return a report of the steps before those of a personal model, which are half of all."""
    if training.study.personal.ditto is None:
        return training.report
    return lambda done: training.report(done / 2)
