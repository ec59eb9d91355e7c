"""Weights that a study names to start from: a version's of the same network, or given from outside. Checked at once."""

from hub.errors import RequestError
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.studies.specification import stored_study
from protocol.study import StudySpec

_REMEDY = "Copy the digest from the page of the version."


def check_start(session: Session, spec: StudySpec) -> None:
    """Check that the weights that a study starts from can be had, and belong to a network like its own.

    Raises: RequestError if this hub has no such version, or it is of another network.
    """
    weights = spec.start.weights
    if weights is None:
        return
    versions = round_stores.versions_with_weights(session, weights)
    if not versions and spec.start.study is None and stores.given_weights(session, weights) is not None:
        return  # whether they are of the study's network, every hospital checks before it trains
    if not versions:
        raise RequestError("No version at this hub has the weights that start.weights names.", _REMEDY)
    if spec.start.study is not None:
        study = stores.study_named(session, spec.start.study)
        named = None if study is None else (study.digest, spec.start.version)
        if named not in {(version.study, version.number) for version in versions}:
            raise RequestError("start.weights is not the digest of the version that start.study names.", _REMEDY)
    parents = [stored_study(stores.study(session, version.study).specification) for version in versions]
    if not any(makes_same_model(parent, spec) for parent in parents):
        raise RequestError(
            "The weights that start.weights names are of another network than the study's.",
            "Give the study the network, image size and number of classes of the one that they come from.",
        )


def makes_same_model(one: StudySpec, other: StudySpec) -> bool:
    """Tell whether two studies' models have tensors of the same names and shapes, as far as a hub can know. Pure."""
    return _what_shapes(one) == _what_shapes(other)


def _what_shapes(study: StudySpec) -> tuple[object, ...]:
    return (
        study.kind,
        study.network,
        study.preprocessing.size,
        len(study.label.classes),
        study.label.time_column is None,
        len(study.table.features),
    )
