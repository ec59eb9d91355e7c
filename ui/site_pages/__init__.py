"""The site's own pages, one file each: fetch from the site's two APIs, show, post. `ui/app.py` draws the frame."""
