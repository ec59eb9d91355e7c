"""Fields side by side in a slot never touch, whatever the sites send within their bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import EncryptionError
from protocol.homomorphic.packing import Packing, pack, unpack
from protocol.homomorphic.parameters import PARAMETERS


def test_eight_sites_at_eight_bits_lie_five_in_a_slot() -> None:
    packing = Packing(bits=8, weight_sum=8)
    assert (packing.field_bits, packing.fields, packing.values_per_ciphertext) == (11, 5, 20480)
    assert packing.ciphertexts(20480) == 1
    assert packing.ciphertexts(20481) == 2


@given(bits=st.integers(1, 32), weight_sum=st.integers(1, 1 << 25))
def test_the_largest_possible_sum_fits_its_field_and_all_fields_the_slot(bits: int, weight_sum: int) -> None:
    packing = Packing(bits, weight_sum)
    assert packing.largest_sum < 1 << packing.field_bits
    full = sum(((1 << packing.field_bits) - 1) << (field * packing.field_bits) for field in range(packing.fields))
    assert full < PARAMETERS.plain_modulus


@settings(max_examples=30)
@given(st.data())
def test_the_slots_of_several_sites_add_up_to_the_weighted_sum_of_their_values(data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=12))
    packing = Packing(data.draw(st.integers(1, 16)), sum(weights))
    count = data.draw(st.integers(1, 9000).filter(lambda n: n <= packing.values_per_ciphertext))
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    top = (1 << packing.bits) - 1
    values = [generator.choice([0, top], count).astype(np.uint64) * np.uint64(weight) for weight in weights]
    slots = sum(pack(v, packing).astype(object) for v in values)
    assert int(np.max(slots)) < PARAMETERS.plain_modulus
    opened = unpack(np.array(slots, np.uint64), packing, count)
    np.testing.assert_array_equal(opened, sum(values))


def test_a_sum_that_no_slot_can_hold_is_refused() -> None:
    assert Packing(bits=32, weight_sum=1 << 25).fields == 1
    with pytest.raises(EncryptionError, match=r"needs 58 bits; a slot holds 57"):
        Packing(bits=32, weight_sum=(1 << 25) + 1)
    with pytest.raises(EncryptionError, match="1 to 32 bits"):
        Packing(bits=33, weight_sum=1)
    with pytest.raises(EncryptionError, match="1 to 32 bits"):
        Packing(bits=8, weight_sum=0)


def test_a_value_above_its_bound_is_not_packed() -> None:
    packing = Packing(bits=8, weight_sum=8)
    assert pack(np.array([2040], np.uint64), packing)[0] == 2040
    with pytest.raises(EncryptionError, match="above its bound"):
        pack(np.array([2041], np.uint64), packing)


@pytest.mark.parametrize("count", [0, 20481])
def test_more_values_than_a_ciphertext_holds_are_refused(count: int) -> None:
    with pytest.raises(EncryptionError, match="1 to 20480 values"):
        pack(np.zeros(count, np.uint64), Packing(8, 8))


def test_slots_that_no_sum_of_honest_values_makes_are_refused() -> None:
    packing = Packing(bits=8, weight_sum=8)
    slots = np.zeros(4096, np.uint64)
    slots[7] = 2041
    with pytest.raises(EncryptionError, match="above its bound"):
        unpack(slots, packing, 4096)
    slots[7] = 1 << 55
    with pytest.raises(EncryptionError, match="above its bound"):
        unpack(slots, packing, 4096)
    slots[7] = 5
    with pytest.raises(EncryptionError, match="beyond its end"):
        unpack(slots, packing, 7)
    assert unpack(slots, packing, 8)[7] == 5
    with pytest.raises(EncryptionError, match="one ciphertext"):
        unpack(slots[1:], packing, 8)
