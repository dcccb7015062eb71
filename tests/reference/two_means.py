"""The two clusters of least squared error, by trying every way to part the values."""

from fractions import Fraction
from itertools import product


def squared_error(values):
    if not values:
        return Fraction(0)
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


def error(values, above):
    """Squared error, as a fraction, of the values that are above and those that are not."""
    exact = [Fraction(value) for value in values]
    return sum(
        squared_error([x for x, up in zip(exact, above, strict=True) if up == side])
        for side in (True, False)
    )


def least_error(values):
    """The least over all partitions into two."""
    return min(error(values, above) for above in product((True, False), repeat=len(values)))
