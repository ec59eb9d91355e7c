"""The site's own HTTP API, for its own pages: loopback or intranet, tokens of its own, nothing about a patient."""
