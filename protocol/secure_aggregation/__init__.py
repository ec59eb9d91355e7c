"""Sums under masks: the hub learns the sum of the sites' integer vectors and no site's own.

    ring.py            integers modulo 2^16 or 2^32, little-endian on the wire
    fixed_point.py     floats <-> bounded integers, by stochastic rounding
    vector.py          what a study's vector is: length, ring, bound of a value, worth of a unit; weights as digits
    key_agreement.py   X25519, HKDF over the whole context, sealed shares
    secret_sharing.py  Shamir over a prime field
    masking.py         own and pairwise masks: ChaCha20 over a whole key, uniform on the whole ring
    roster.py          who takes part in one round's masks, with which keys; the threshold
    phases.py          the legal order of messages at the hub and at a site: tables

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, Figure 4,
with signed keys and the consistency check (active adversaries), threshold floor(2n/3) + 1.

Another producer of ring integers (distributed noise, seeded random coordinates) plugs in at one place: `vector_terms`
in `vector.py`. It says for a study how many values a vector has, the bound of each, the ring, what one unit of the sum
is worth, and which step names the producer (`quantised`, ...). The worker hands over those integers as little-endian
ring words, centred values as two's complement (`Ring.encode`), with the step's name in the candidate; the gate checks
length and bound, appends the weight's digits, masks and sends. Masks, shares, messages and the hub's opening do not
know what the integers mean. A value's bound times `maximum_sites` must stay below half the ring: `VectorTerms` refuses
to exist otherwise. The coordinates that the values belong to may be any function of the task that every site computes
alike.
"""
