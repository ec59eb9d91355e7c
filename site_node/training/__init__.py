"""Local training and evaluation: from an order to a candidate, on this hospital's images only."""
