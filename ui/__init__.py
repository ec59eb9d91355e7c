"""The people's pages: Streamlit over the hub's HTTP API, with nothing of the hub or of a site imported."""
