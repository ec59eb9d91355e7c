"""MONAI Bundles: a study's version written as one, and one read as a study. Nothing here runs in a site's processes."""
