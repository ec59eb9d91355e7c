"""The parts of `overhead.py`: a federation of real processes in which only the training is left out, and its floor."""
