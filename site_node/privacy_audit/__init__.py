"""The privacy claim put to the test: what an attacker can in fact tell from one training run, and from one update."""
