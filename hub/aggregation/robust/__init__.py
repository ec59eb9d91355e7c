"""Joinings that a few wild updates cannot lead astray: one paper a file. They need each update in clear."""
