"""Counts of patients as a hospital's own people read them: in tens, and never a small one.

Two questions whose criteria differ by one patient have the same answer then, unless that patient begins a ten. Who
asks often enough may find such a place: this keeps figures out of reports and screens; it does not bound what a person
learns who may read the index itself.
"""

TEN = 10


def in_tens(count: int, least: int) -> int | None:
    """Return a count rounded down to tens; None if it is below `least`, or no ten.

    >>> in_tens(47, 10), in_tens(9, 10), in_tens(14, 15), in_tens(7, 1)
    (40, None, None, None)
    """
    return count // TEN * TEN if count >= max(least, TEN) else None
