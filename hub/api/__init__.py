"""The HTTP API of the hub: thin handlers, one resource a file; each route states who may call it."""
