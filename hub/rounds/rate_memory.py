"""The sites' learning rates between database and rule: what the rule needs to know, and where its answer is kept.

The factors for the rounds that follow a version stand in that version's state, and so in its signed lineage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hub.aggregation.agreement import Course, Sent, courses_of
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.registry.blobs import BlobStore
from hub.registry.lineage import read_lineage
from hub.rounds.participants import APPROVED
from hub.rounds.rate_factors import RATE, RatedSite, next_rates
from hub.storage import round_stores, stores
from hub.storage.database import Session
from protocol.site_rates import QualityFigures
from protocol.study import StudySpec
from protocol.tensors import read_manifest


@dataclass(frozen=True)
class Rating:
    """What the close of a round needs to rate the sites: who they are, and the blobs of those in the version before."""

    sites: tuple[RatedSite, ...]
    earlier: Mapping[str, str]


def rating_of(session: Session, spec: StudySpec, study: str) -> Rating | None:
    """Return what rates a study's sites as the database has it; None where all learn at one rate."""
    if spec.site_rates.adapt == "none":
        return None
    return Rating(tuple(rated_sites(session, spec, study)), _earlier(session, spec, study))


def rated_sites(session: Session, spec: StudySpec, study: str) -> list[RatedSite]:
    """Return the sites that train, with what they approved to be known."""
    most = spec.secure_aggregation.maximum_weight
    found: list[RatedSite] = []
    for row in stores.participants(session, study):
        if row.state == APPROVED and row.training_patients > 0:
            patients = row.training_patients
            weight = 1.0 if spec.strategy.weighting == "equal" else float(min(patients, most or patients))
            figures = None if row.quality is None else QualityFigures.model_validate_json(row.quality)
            found.append(RatedSite(row.site, weight, patients, figures))
    return found


def with_rates(
    spec: StudySpec,
    rating: Rating | None,
    before: ServerState,
    after: ServerState,
    updates: Sequence[CountedUpdate],
    blobs: BlobStore,
) -> ServerState:
    """Return a version's state with the factors for the rounds that follow it.

    Guarantee: a function of study, rating, states and updates alone.
    """
    if rating is None:
        return after
    courses = _courses(rating, updates, after, blobs) if spec.site_rates.reads_updates else {}
    rates = next_rates(spec, rating.sites, before.numbers, courses)
    return replace(after, numbers={**after.numbers, **rates})


def rates_after(session: Session, spec: StudySpec, study: str, state: ServerState) -> Mapping[str, float]:
    """Return the factors that follow a version; after version 0, which no update made, by the data's quality alone."""
    if spec.site_rates.adapt == "none" or any(name.startswith(RATE) for name in state.numbers):
        return state.numbers
    return next_rates(spec, rated_sites(session, spec, study), {}, {})


def rates_of_versions(session: Session, spec: StudySpec, study: str) -> dict[int, Mapping[str, float]]:
    """Return the numbers kept with each of a study's versions; none where all sites learn at one rate."""
    if spec.site_rates.adapt == "none":
        return {}
    states = {row.number: read_lineage(row.lineage)["server_state"] for row in stores.versions(session, study)}
    return {number: ServerState.from_document(state).numbers for number, state in states.items()}


def _courses(
    rating: Rating, updates: Sequence[CountedUpdate], state: ServerState, blobs: BlobStore
) -> Mapping[str, Course]:
    last = {update.site: update for update in updates}  # in buffered rounds a site's second update is the newer one
    sent = [
        Sent(
            site,
            blobs.path(update.blob),
            update.weight * update.factor,
            blobs.path(rating.earlier[site]) if site in rating.earlier else None,
        )
        for site, update in sorted(last.items())
    ]
    return courses_of(sent, read_manifest(blobs.path(state.weights)))


def _earlier(session: Session, spec: StudySpec, study: str) -> dict[str, str]:
    if not spec.site_rates.reads_updates:
        return {}
    # An update of long ago lies further off for its age alone, and those who are asked seldom would pay for it.
    newest = stores.newest_version(session, study).number
    counted = [row for row in round_stores.updates_of_study(session, study) if row.round > 0]
    return {row.site: row.blob for row in counted if row.counted_in == newest}  # of a site's two the newer one stays
