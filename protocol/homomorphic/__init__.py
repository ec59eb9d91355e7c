"""Additively homomorphic encryption of quantised updates: BFV, several values in a slot, secret-key ciphertexts."""
