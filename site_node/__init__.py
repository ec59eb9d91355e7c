"""One hospital: what indexes, trains, decides what may leave, and speaks to the hub, each in a process of its own."""
