"""The append-only log of every change of state, its signed heads, and their independent check."""
