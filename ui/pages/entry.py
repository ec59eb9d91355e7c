"""The script that Streamlit runs; the work is in `ui/app.py`.

It lies in this folder and not beside it, because Streamlit takes a `pages` folder next to its script for an old kind of
multipage app, and would then open pages without the frame and the sign-in check around them.
"""

from ui.app import main

if __name__ == "__main__":
    main()
