"""What a study may not ask of the sites' training: steps, schedule, FedProx, and what sites keep. Pure.

Each rule with its reason and remedy; called by `study_rules.py`.
"""

from protocol.study import StudySpec
from protocol.study_parts import MOST_LOCAL_STEPS

NORMALISATION = "normalisation"
"""The word in `personal.keep` for the tensors of all normalisation layers."""
WITHOUT_IMAGE_GRADIENTS = frozenset({"swinunetr"})
"""Of these torch 2.13 cannot make image by image, in bfloat16, the gradients that clipping needs (torch.func.vmap)."""


def training_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of local training that the study breaks."""
    return [*_steps(study), *_proximal(study), *_pulls(study), *_precision(study), *_personal(study)]


def _steps(study: StudySpec) -> list[str]:
    terms, found = study.training, list[str]()
    if (terms.local_steps is None) == (terms.local_epochs is None):
        found.append(
            "training.local_epochs: a round's length is stated once. State local_steps, or local_epochs with "
            "local_steps: null."
        )
    elif study.local_steps > MOST_LOCAL_STEPS:
        found.append(
            f"training.local_epochs: {study.local_steps} steps a round are more than {MOST_LOCAL_STEPS}. Take fewer "
            "epochs, or raise training.sampling_rate."
        )
    if terms.warm_up_rounds >= study.rounds:
        found.append(
            f"training.warm_up_rounds: {terms.warm_up_rounds} of {study.rounds} rounds leave none at the full learning "
            "rate. Lower it below `rounds`."
        )
    return found


def _proximal(study: StudySpec) -> list[str]:
    if study.training.proximal and study.privacy.mechanism == "shared-noise":
        return [
            "training.proximal: with 'shared-noise' every step starts at the version itself, so there is nothing to "
            "pull back from. Set it to 0."
        ]
    return []


def _precision(study: StudySpec) -> list[str]:
    if study.training.precision == "float32":
        return []
    if study.kind == "tabular":
        return [
            "training.precision: a table's values would be rounded to 8 bits, a little more than two digits, and its "
            "networks are too small to gain by it. Set it to float32."
        ]
    clips_patients = study.privacy.epsilon is not None and study.privacy.mechanism != "site-level"
    if clips_patients and study.network.name in WITHOUT_IMAGE_GRADIENTS:
        return [
            f"training.precision: torch makes no single image's gradient of {study.network.name} in bfloat16, which "
            "clipping each patient needs. Set it to float32, or choose unet or segresnet."
        ]
    return []


def _pulls(study: StudySpec) -> list[str]:
    """Return which pulls make plain gradient descent swing ever wider; Adam's steps have a length of their own.

    A step of rate r towards a point, with pull p, multiplies the distance by 1 - r p: explicit Euler on the pull's
    quadratic, which is stable while r p < 2, and with momentum m while r p < 2 (1 + m) (Polyak 1964, section 2).
    """
    if study.training.optimizer != "sgd":
        return []
    pulls = {"training.proximal": study.training.proximal, "personal.ditto": study.personal.ditto or 0.0}
    rate, limit = largest_rate(study), 2.0 * (1.0 + study.training.momentum)
    highest = limit / rate - study.training.weight_decay
    remedy = f"Lower it below {highest:.3g}, or lower" if highest > 0 else "Lower"
    return [
        f"{key}: each step multiplies the distance from the version by 1 - learning rate x pull, and "
        f"{rate:g} x {pull:g} is too large (explicit Euler is stable below {limit:g}, and weight decay is a pull too): "
        f"the weights would swing ever wider. {remedy} training.learning_rate."
        for key, pull in pulls.items()
        if pull and pull >= highest
    ]


def largest_rate(study: StudySpec) -> float:
    """Return the largest learning rate of any round at any site; schedules only lower it."""
    return study.training.learning_rate * (1.0 if study.site_rates.adapt == "none" else study.site_rates.most)


def _personal(study: StudySpec) -> list[str]:
    terms, found = study.personal, list[str]()
    if not terms.keep and terms.ditto is None:
        if terms.judged != "own":
            found.append("personal.judged: this study has no personal models to choose from. Leave it out.")
        return found
    if terms.keep and terms.ditto is not None:
        found.append(
            "personal.ditto: a site has one personal model: the study's with tensors of its own (keep), or one trained "
            "beside (ditto). Leave one of them out."
        )
    if study.privacy.mechanism != "dp-sgd":
        found.append(
            f"personal: with {study.privacy.mechanism!r} a site's own training is not noised by itself, so that a "
            "personal model's held-out figures would tell of its patients. Use privacy.mechanism: dp-sgd."
        )
    if terms.keep and terms.judged != "own":
        found.append(
            "personal.judged: without the sites' own tensors the study's version is no whole model, so it is judged "
            "with them. Leave it out."
        )
    if NORMALISATION in terms.keep and study.network.normalisation == "none":
        found.append(
            "personal.keep: a network without normalisation has no such tensors. Choose network.normalisation, or "
            "name other tensors."
        )
    if terms.judged == "own":
        found += _last_personal_models(study)
    return found


def _last_personal_models(study: StudySpec) -> list[str]:
    kept = "what is judged is each site's personal model after that round, of which a site keeps the last."
    found = list[str]()
    if study.evaluation.final_version != "last":
        found.append(f"evaluation.final_version: {kept} Set it to last.")
    if study.evaluation.patience is not None:
        found.append(
            f"evaluation.patience: a study out of patience ends with its best version, and {kept} Leave it out, or "
            "(Ditto) set personal.judged: global."
        )
    return found
