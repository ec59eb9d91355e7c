"""Model versions with their lineage, and the content-addressed files that hold their weights."""
