"""The order of a group in words: 720, or 20! 2^20 = 2.6e24."""

from __future__ import annotations

import math

__all__ = ["order_in_words", "product_order"]

_WRITTEN_OUT = 10**7


def order_in_words(order: int | float, formula: str = "") -> str:
    """The number of elements of a group: as a number where that is short, else its formula and its size.

    Args:
        order: The number of elements.
        formula: A formula of the order, such as "20! 2^20"; without one, only the size is said.

    Example:
        >>> order_in_words(720, "6!"), order_in_words(math.factorial(20), "20!"), order_in_words(math.inf)
        ('720', '20! = 2.4e18', 'infinite')
    """
    if not isinstance(order, int):
        return "infinite"
    if order < _WRITTEN_OUT:
        return str(order)
    exponent = math.log10(order)  # exact enough for an int of any size, whose digits Python may refuse to print
    mantissa, power = 10 ** (exponent % 1), int(exponent)
    if mantissa >= 9.95:
        mantissa, power = 1.0, power + 1
    size = f"{mantissa:.1f}e{power}"
    return f"{formula} = {size}" if formula else size


def product_order(orders: list[int | float]) -> int | float:
    """The product of the orders of some groups: exact, or infinite.

    Args:
        orders: The orders of the factors.

    Example:
        >>> product_order([6, 2]), product_order([math.factorial(200), math.inf])
        (12, inf)
    """
    return math.prod(orders) if all(isinstance(order, int) for order in orders) else math.inf
