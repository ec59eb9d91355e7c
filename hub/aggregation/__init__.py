"""From accepted updates to the next weights: admission, opening, chunked sums, strategies (one paper a file)."""
