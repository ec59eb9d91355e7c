"""The demo: its study, and three hospitals of real chest radiographs."""
