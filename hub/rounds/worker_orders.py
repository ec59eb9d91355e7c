"""What the hub's worker is asked to do on a round: it looks at the round's state and does what is due then.

One order serves them all: close an aggregating round, add ciphertexts, open a sum of held-out counts. It may be given
twice or get lost; the clock (`deadlines.py`) gives it again.
"""

from hub.services import enqueue_after_commit
from hub.storage.database import Session

AGGREGATE = "aggregate"


def order_work(session: Session, study: str, number: int) -> None:
    """Give a round to the hub's worker once the transaction is committed."""
    enqueue_after_commit(session, AGGREGATE, {"study": study, "round": number})
