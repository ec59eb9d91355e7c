"""One suite for each interface, run on each implementation."""
