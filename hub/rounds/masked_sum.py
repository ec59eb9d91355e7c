"""From the database to what is added and unmasked: roster, members, survivors, vectors and revealed shares."""

import json
from collections.abc import Sequence

from hub.aggregation.unmasking import MaskedSum
from hub.errors import AggregationError
from hub.rounds.asking import turn_on
from hub.services import Services
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import masking_messages, masking_round
from hub.storage.tables import MaskingRoundRow
from protocol.messages import expect
from protocol.secure_aggregation.masking import Opening
from protocol.secure_aggregation.roster import Roster, roster_of
from protocol.secure_messages import MaskingKeys, MaskingReveal
from protocol.signing import read_unverified

RESTORE = "Restore the hub's database from a backup."


def names_in(text: str) -> tuple[str, ...]:
    """Return the names that a column holds."""
    return tuple(json.loads(text))


def stored_masks(session: Session, study: str, number: int) -> MaskingRoundRow:
    """Return the masks, or the parts of the key, of a round's training tasks.

    Raises: AggregationError if they are missing.
    """
    found = masking_round(session, study, number)
    if found is None:
        raise AggregationError("A round's masks or keys are not in the database.", RESTORE)
    return found


def stored_sum(session: Session, services: Services, study: str, number: int) -> MaskedSum:
    """Return all that the sum of a round is made from.

    Raises: AggregationError if the round has no masks, or the survivors' vectors are not those that were accepted.
    """
    masked, version = stored_masks(session, study, number), round_stores.last_version(session, study)
    if version is None:
        raise AggregationError("The version that a round starts from is not in the database.", RESTORE)
    updates = round_stores.updates_of_round(session, study, number)
    survivors = names_in(masked.survivors)
    if sorted(update.site for update in updates) != list(survivors):
        raise AggregationError("The vectors of a round are not its survivors'.", RESTORE)
    spec, roster = turn_on(session, services, study).spec, posted_roster(session, masked)
    opening = revealed_opening(session, masked)
    return MaskedSum(spec, version.weights_digest, tuple(update.blob for update in updates), roster, opening)


def revealed_opening(session: Session, masked: MaskingRoundRow) -> Opening:
    """Return what the survivors revealed."""
    members, survivors = names_in(masked.members), names_in(masked.survivors)
    rows = masking_messages(session, masked, "reveal")
    reveals = [expect(read_unverified(row.envelope), MaskingReveal) for row in rows]
    return Opening(
        members=members,
        survivors=survivors,
        seed_shares={name: _shares(reveals, "seed_shares", name) for name in survivors},
        key_shares={name: _shares(reveals, "key_shares", name) for name in members if name not in survivors},
    )


def posted_roster(session: Session, masked: MaskingRoundRow) -> Roster:
    """Return the roster that the sites were shown.

    Raises: AggregationError if the keys in the database are not those.
    """
    posted = names_in(masked.roster)
    rows = masking_messages(session, masked, "keys")
    roster = roster_of(expect(read_unverified(row.envelope), MaskingKeys) for row in rows if row.site in posted)
    if roster.digest != masked.roster_digest:
        raise AggregationError("The keys of a round are not those of its roster.", RESTORE)
    return roster


def _shares(reveals: Sequence[MaskingReveal], kind: str, name: str) -> dict[str, bytes]:
    held = {reveal.site: getattr(reveal, kind).get(name) for reveal in reveals}
    return {site: bytes.fromhex(share) for site, share in held.items() if share is not None}
