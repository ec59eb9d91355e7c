"""Patient-level differential privacy: who is drawn, how far one patient can move the sum, and the noise on it."""
