"""How images come into a hospital's node over the network: fetched from the PACS, or sent by modalities."""
