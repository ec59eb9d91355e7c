"""Parts of the benchmark `load.py`: a thousand light hospitals, and the hub that they call."""
