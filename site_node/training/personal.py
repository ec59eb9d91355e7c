"""A site's own version of the model: tensors that never leave it (FedBN), or a model trained beside (Ditto).

**Tensors that stay** (`personal.keep`). Each round starts from the version with this site's own tensors put in; they
are trained with the others, kept here, and leave as a difference of zero. So manifest, masks and sums are what they
are without it, the mean of these tensors never moves from version 0, and a version is judged at a site with the site's
own tensors put in. A site that has not trained yet, or lost its state, has those of version 0.
Neither those tensors nor a personal model are ever exchanged for another round's: where a site has trained on and keeps
that version's no more, it refuses to judge, for a reason.

**Ditto** (`personal.ditto` = lambda). After the round's own training the site trains its personal model v for as many
steps: from where v was, each gradient with lambda (v - x) added, x being the round's version. v never leaves; the
study's update is what it would be without it. Judged is v, or the version if the study says so. Of a v that diverged
a mark is kept: it begins again at the next version that the site trains on, and until then nothing is judged here, for
the version's figures are not those of a personal model.

Privacy. What leaves of a personal model are its held-out figures, which tell of training patients what the model tells.
With `privacy.epsilon` it is post-processing of noised gradients: the tensors that stay were moved by the same noised
steps as the others, which are accounted whether their result is sent or not; Ditto's steps are noised DP-SGD steps on
draws of their own, and are charged as such (`StudySpec.noised_steps`: twice as many a round).

Sources: Li et al. 2021, arXiv:2102.07623 (FedBN); Li et al. 2021, arXiv:2012.04221 (Ditto), Algorithm 1.
"""

from fnmatch import fnmatchcase

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from protocol.study import StudySpec
from protocol.tensors import Weights
from protocol.training_rules import NORMALISATION
from site_node.errors import PersonalModelDivergedError, PersonalModelGoneError, UnknownTensorError
from site_node.training.local_state import KEPT_ROUNDS, LocalState
from site_node.training.networks import build_network, weights_of

OWN = "own"
"""The name of a site's own tensors in its local state."""
BUFFERED_ROUNDS = 8
"""Of so many rounds a site keeps its own in buffered rounds: it may train on so often before a version is judged."""
DIVERGED: Weights = {"diverged": np.ones(1, np.float32)}
"""The mark that is kept of a personal model that did not stay finite; no tensor of a network has this name."""
_NORMALISING = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def kept_tensors(study: StudySpec) -> frozenset[str]:
    """Return the names of the tensors that stay at each site; none if the study keeps none.

    Raises: UnknownNetworkError as `build_network`; UnknownTensorError if an entry names no tensor of the network, or
        all stay and nothing is learnt together.
    """
    if not study.personal.keep:
        return frozenset()
    network = build_network(study)
    names, kept = frozenset(weights_of(network)), frozenset[str]()
    for entry in study.personal.keep:
        found = _normalisation(network) & names if entry == NORMALISATION else _matching(entry, names)
        if not found:
            raise UnknownTensorError(
                f"personal.keep: {entry!r} names no tensor of this network.",
                f"Its tensors are: {', '.join(sorted(names)[:8])} and so on. A pattern may hold * and ?.",
            )
        kept |= found
    if kept == names:
        raise UnknownTensorError(
            "personal.keep: every tensor stays at its site, so that nothing is learnt together.", "Keep fewer."
        )
    return kept


def with_own(version: Weights, own: Weights | None) -> Weights:
    """Return a version with a site's own tensors put in."""
    return version if own is None else {**version, **own}


def own_part(weights: Weights, kept: frozenset[str]) -> Weights:
    """Return the tensors that stay here."""
    return {name: weights[name] for name in sorted(kept)}


def without_own(update: Weights, kept: frozenset[str]) -> Weights:
    """Return the update as it leaves: nothing of the tensors that stay."""
    return {name: np.zeros_like(moved) if name in kept else moved for name, moved in update.items()}


def personal_start(version: Weights, own: Weights | None) -> Weights:
    """Return where a personal model goes on: where it was, or at the version if it is new or had diverged."""
    return version if own is None or _has_diverged(own) else own


def judged_weights(study: StudySpec, version: Weights, state: LocalState) -> Weights:
    """Return what a site evaluates for a version: with personal parts the site's own, else the version itself.

    A site that has not trained has nothing of its own and judges the version.
    Raises: PersonalModelDivergedError if the personal model has diverged; PersonalModelGoneError if the site trained
        on and what it had when this version was made is not kept any more.
    """
    if not is_judged_personally(study):
        return version
    own = state.after(OWN)
    if own is None and state.has_forgotten(OWN, rounds_kept(study)):
        raise PersonalModelGoneError(
            "What this site had of its own when that version was made is not kept any more, or is damaged.",
            "Is the evaluation slow here, or the disk faulty?",
        )
    if study.personal.ditto is None:
        return with_own(version, own)
    if _has_diverged(own):
        raise PersonalModelDivergedError(
            "This site's personal model diverged, so there is none to judge.",
            "Lower training.learning_rate or personal.ditto.",
        )
    return version if own is None else own


def rounds_kept(study: StudySpec) -> int:
    """Return of how many rounds a site keeps what is its own: in buffered rounds judging lags behind training."""
    lags = study.pace.mode == "buffered" and is_judged_personally(study)
    return BUFFERED_ROUNDS if lags else KEPT_ROUNDS


def is_judged_personally(study: StudySpec) -> bool:
    """Tell whether a study's held-out figures are those of the sites' personal models."""
    return study.personal.judged == "own" and (bool(study.personal.keep) or study.personal.ditto is not None)


def _has_diverged(own: Weights | None) -> bool:
    return own is not None and own.keys() == DIVERGED.keys()


def _normalisation(network: nn.Module) -> frozenset[str]:
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, _NORMALISING)}
    return frozenset(f"{name}.{inner}" for name, layer in layers.items() for inner in layer.state_dict())


def _matching(pattern: str, names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if fnmatchcase(name, pattern))
