"""Studies from proposal to end, and the sites' answers to them."""
