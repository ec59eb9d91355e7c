"""What a study trains and counts, one file for each kind of outcome; `choice.py` says which is a study's."""
