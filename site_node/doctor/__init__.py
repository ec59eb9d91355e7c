"""`wardround site doctor`: one file a kind of check, each a probe that looks and a pure verdict on what it saw."""
