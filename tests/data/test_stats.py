"""Figures of many numbers, of which only how often each is there is held."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from inftythink.data.stats import describe


@given(st.lists(st.integers(0, 30), max_size=300))
def test_percentiles_are_the_values_at_their_ranks(values):
    found = describe(Counter(values))
    if not values:
        assert found == {"count": 0}
        return
    ordered = sorted(values)
    for percent in (10, 50, 90, 99):
        assert found[f"p{percent}"] == ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
    assert (found["count"], found["max"]) == (len(values), max(values))
    assert abs(found["mean"] - sum(values) / len(values)) <= 0.05 + 1e-9
