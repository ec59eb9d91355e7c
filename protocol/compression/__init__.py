"""How updates and versions are made smaller: one visible list of steps, undone in reverse while bytes arrive."""
