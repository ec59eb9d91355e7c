"""A site's own version of the model: tensors that never leave it (FedBN), or a model trained beside (Ditto).

**Tensors that stay** (`personal.keep`). Each round starts from the version with this site's own tensors put in; they
are trained with the others, kept here, and leave as a difference of zero. So manifest, masks and sums are what they
are without it, the mean of these tensors never moves from version 0, and a version is judged at a site with the site's
own tensors put in. A site that has not trained yet, or lost its state, has those of version 0.

**Ditto** (`personal.ditto` = lambda). After the round's own training the site trains its personal model v for as many
steps: from where v was, each gradient with lambda (v - x) added, x being the round's version. v never leaves; the
study's update is what it would be without it. Judged is v, or the version if the study says so.

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
from site_node.errors import UnknownNetworkError
from site_node.training.local_state import LocalState
from site_node.training.networks import build_network, weights_of

OWN = "own"
"""The name of a site's own tensors in its local state."""
_NORMALISING = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def kept_tensors(study: StudySpec) -> frozenset[str]:
    """Return the names of the tensors that stay at each site; none if the study keeps none.

    Raises: UnknownNetworkError if an entry names no tensor of the network, or all stay and nothing is learnt together.
    """
    if not study.personal.keep:
        return frozenset()
    network = build_network(study)
    names, kept = frozenset(weights_of(network)), frozenset[str]()
    for entry in study.personal.keep:
        found = _normalisation(network) & names if entry == NORMALISATION else _matching(entry, names)
        if not found:
            raise UnknownNetworkError(
                f"personal.keep: {entry!r} names no tensor of this network.",
                f"Its tensors are: {', '.join(sorted(names)[:8])} and so on. A pattern may hold * and ?.",
            )
        kept |= found
    if kept == names:
        raise UnknownNetworkError(
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


def judged_weights(study: StudySpec, version: Weights, state: LocalState) -> Weights:
    """Return what a site evaluates for a version: with personal parts the site's own, else the version itself."""
    if not is_judged_personally(study):
        return version
    own = state.after(OWN)
    if study.personal.ditto is not None:
        return version if own is None else own
    return with_own(version, own)


def is_judged_personally(study: StudySpec) -> bool:
    """Tell whether a study's held-out figures are those of the sites' personal models."""
    return study.personal.judged == "own" and (bool(study.personal.keep) or study.personal.ditto is not None)


def _normalisation(network: nn.Module) -> frozenset[str]:
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, _NORMALISING)}
    return frozenset(f"{name}.{inner}" for name, layer in layers.items() for inner in layer.state_dict())


def _matching(pattern: str, names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if fnmatchcase(name, pattern))
