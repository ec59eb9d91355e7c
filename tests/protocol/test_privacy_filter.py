"""The lifetime's filter: never looser than its budget, however studies are chosen; against dp-accounting's own sums."""

import math
from itertools import pairwise

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.accountants import NEIGHBOURS, ORDERS
from protocol.errors import AccountingError
from protocol.privacy_accounting import calibrate_noise, epsilon_of, histogram_event
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import (
    FREE,
    MECHANISMS,
    Composition,
    Cost,
    LifetimeBudget,
    choose_order,
    divergence_for,
    epsilon_from,
    largest_epsilon,
    preset_budget,
    renyi_divergence,
)


def preset(
    lifetime: tuple[float, float], composition: Composition = "renyi", cap: tuple[float, float] = (8.0, 1e-4)
) -> LifetimeBudget:
    return preset_budget(*lifetime, maximum_epsilon=cap[0], maximum_delta=cap[1], composition=composition)


def gaussian(noise: float, count: int = 100, rate: float = 0.1) -> PrivacyEvent:
    return PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=rate, noise_multiplier=noise, count=count)


def admitted(budget: LifetimeBudget, events: list[PrivacyEvent], delta: float, most: int = 1000) -> int:
    """Return how many equal studies the filter lets through."""
    spent, cost, studies = FREE, budget.cost(events, delta), 0
    while studies < most and budget.fits(spent, cost):
        spent, studies = plus(spent, cost), studies + 1
    return studies


def plus(one: Cost, other: Cost) -> Cost:
    return (one[0] + other[0], one[1] + other[1])


EVENTS = st.one_of(
    st.builds(gaussian, st.floats(0.6, 20.0), st.integers(1, 400), st.sampled_from([0.01, 0.1, 0.5, 1.0])),
    st.builds(histogram_event, st.floats(0.01, 3.0), st.integers(1, 50)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=6), st.integers(2, 32))
def test_the_sum_at_one_order_is_that_of_a_single_accountant(events: list[PrivacyEvent], order: int) -> None:
    accountant = RdpAccountant([order], NEIGHBOURS)
    # The tight bound of any pure mechanism is that of randomised response with two answers, one replaced by the other.
    pure = RdpAccountant([order], dp_accounting.NeighboringRelation.REPLACE_ONE)
    for event in events:
        if event.mechanism == "poisson-gaussian":
            single = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, single), event.count)
        else:
            noise = 2 / (1 + math.exp(1 / event.noise_multiplier))
            pure.compose(dp_accounting.RandomizedResponseDpEvent(noise, 2), event.count)
    assert renyi_divergence(events, order) == pytest.approx(float(accountant.rdp[0] + pure.rdp[0]), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(EVENTS, min_size=1, max_size=25),
    st.sampled_from([(24.0, 1e-3), (6.0, 1e-3), (8.0, 1e-4), (3.0, 1e-5)]),
    st.sampled_from(["renyi", "sum"]),
)
def test_no_sequence_of_studies_exceeds_the_budget(
    events: list[PrivacyEvent], lifetime: tuple[float, float], composition: Composition
) -> None:
    """Adaptive: an adversary may stop, or go on with a smaller study after a refusal, as this loop does."""
    budget = preset(lifetime, composition)
    spent, taken, delta = FREE, [], lifetime[1] / 20
    for event in events:
        cost = budget.cost([event], delta)
        if budget.fits(spent, cost):
            spent = plus(spent, cost)
            taken.append(event)
    # The composition of what was taken, by another accountant, is within the lifetime's (epsilon, delta).
    assert epsilon_of(taken, lifetime[1]) <= lifetime[0] + 2e-3
    assert budget.epsilon_spent(spent) <= lifetime[0] * (1 + 1e-8)


@pytest.mark.parametrize("lifetime", [(24.0, 1e-3), (8.0, 1e-4), (3.0, 1e-5)])
def test_a_filter_used_up_implies_its_epsilon_and_no_more(lifetime: tuple[float, float]) -> None:
    budget = preset(lifetime)
    assert budget.order is not None
    epsilon, _ = compute_epsilon([budget.order], [budget.limit[0]], budget.delta)
    assert epsilon <= budget.epsilon
    assert epsilon == pytest.approx(budget.epsilon, rel=1e-6)


@given(st.floats(0.01, 50), st.sampled_from([1e-3, 1e-5]), st.integers(2, 64))
def test_divergence_and_epsilon_are_each_other_s_inverse(epsilon: float, delta: float, order: int) -> None:
    divergence = divergence_for(epsilon, delta, order)
    assert epsilon_from(divergence, delta, order) == pytest.approx(epsilon)


@pytest.mark.parametrize(
    ("lifetime", "study", "by_renyi", "by_sum"),
    [
        ((24.0, 1e-3), (8.0, 1e-4), 6, 3),
        ((24.0, 1e-3), (4.0, 1e-4), 20, 6),
        ((24.0, 1e-3), (1.0, 1e-5), 278, 24),
        ((10.0, 1e-4), (1.0, 1e-5), 63, 10),
        ((8.0, 1e-4), (8.0, 1e-4), 0, 1),  # the price of one order: the whole budget in a single study does not fit
    ],
)
def test_how_many_studies_fit_into_a_lifetime(
    lifetime: tuple[float, float], study: tuple[float, float], by_renyi: int, by_sum: int
) -> None:
    events = [gaussian(calibrate_noise(0.1, 100, *study))]
    assert admitted(preset(lifetime, cap=study), events, study[1]) == by_renyi
    assert admitted(preset(lifetime, "sum"), events, study[1]) == by_sum


@pytest.mark.parametrize("lifetime", [(24.0, 1e-3), (10.0, 1e-4), (6.0, 1e-3)])
def test_the_order_chosen_admits_as_many_typical_studies_as_any_other(lifetime: tuple[float, float]) -> None:
    events = [gaussian(calibrate_noise(0.1, 100, min(8.0, lifetime[0]), 1e-4))]
    chosen = admitted(preset(lifetime), events, 1e-4)
    for order in range(2, 33):
        other = LifetimeBudget(epsilon=lifetime[0], delta=lifetime[1], order=order)
        assert admitted(other, events, 1e-4) <= chosen


@pytest.mark.parametrize(("lifetime", "cap"), [(24.0, 8.0), (3.0, 1.0), (1.0, 0.5), (100.0, 8.0)])
def test_the_order_is_that_of_the_calibrated_noise_also_where_the_rough_noise_settles_it(
    lifetime: float, cap: float
) -> None:
    noise = calibrate_noise(0.1, 100, cap, 1e-4)
    studies = {
        order: divergence_for(lifetime, 1e-3, order) / renyi_divergence([gaussian(noise)], order) for order in ORDERS
    }
    assert choose_order(lifetime, 1e-3, cap, 1e-4) == max(ORDERS, key=lambda order: studies[order])


def test_the_order_depends_on_the_policy_alone_and_survives_a_generous_one() -> None:
    assert choose_order(24.0, 1e-3, 8.0, 1e-4) == 2
    assert choose_order(100_000.0, 0.99, 1000.0, 0.99) >= 2


@pytest.mark.parametrize("pure", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("order", [2, 3, 16])
def test_discrete_laplace_noise_has_its_exact_divergence(pure: float, order: int) -> None:
    def log_mass(x: int) -> float:
        return math.log(math.tanh(pure / 2)) - pure * abs(x)

    reach = math.ceil(60 / pure)
    terms = [order * log_mass(x) + (1 - order) * log_mass(x - 1) for x in range(-reach, reach + 1)]
    exact = math.log(math.fsum(math.exp(term) for term in terms)) / (order - 1)
    assert renyi_divergence([histogram_event(pure, 1)], order) == pytest.approx(exact, rel=1e-6)
    assert exact <= min(pure, order * pure**2 / 2) + 1e-12


@pytest.mark.parametrize("composition", ["renyi", "sum"])
def test_what_is_said_to_fit_fits_and_hardly_more_would(composition: Composition) -> None:
    budget = preset((24.0, 1e-3), composition)
    spent, left = FREE, [largest_epsilon(budget, FREE, 1e-4)]
    for _ in range(3):
        cost = budget.cost([gaussian(calibrate_noise(0.1, 100, 4.0, 1e-4))], 1e-4)
        spent = plus(spent, cost)
        left.append(largest_epsilon(budget, spent, 1e-4))
        fitting, larger = (calibrate_noise(0.1, 100, left[-1] * factor, 1e-4) for factor in (0.995, 1.02))
        assert budget.fits(spent, budget.cost([gaussian(fitting)], 1e-4))
        assert not budget.fits(spent, budget.cost([gaussian(larger)], 1e-4))
    assert all(later < earlier for earlier, later in pairwise(left))
    assert largest_epsilon(budget, budget.limit, 1e-4) == pytest.approx(0.0, abs=0.05)


def test_nothing_costs_nothing_and_fits_even_a_patient_who_is_spent() -> None:
    budget = preset((24.0, 1e-3))
    assert budget.cost([], 1e-4) == FREE
    assert budget.fits((1e9, 1.0), FREE)
    assert budget.epsilon_spent(FREE) == 0.0


def test_every_mechanism_of_an_event_has_its_divergence() -> None:
    known = PrivacyEvent.model_fields["mechanism"].annotation.__args__  # type: ignore[union-attr]
    assert set(known) <= set(MECHANISMS)


def test_a_mechanism_without_a_divergence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MECHANISMS, "poisson-gaussian")
    with pytest.raises(AccountingError, match="poisson-gaussian"):
        renyi_divergence([gaussian(1.2345)], 7)
