"""Who is calling, and what they may do: sites by keys, people by password, both by short-lived tokens."""
