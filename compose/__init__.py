"""How the parts are put together: the demo on one machine, the simulation in one process. Imported by nobody."""
