"""One file for each page; Streamlit runs them, `ui/app.py` says who may see which."""
