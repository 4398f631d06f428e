"""Coordinates of some angles in which a group acts without translations, made from other angles, exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pyro_gflows.groups.torus_isometries import TorusIsometry
from pyro_gflows.numerics.integer_lattices import Row, hermite_basis

__all__ = ["AngleFrame", "frame_of_isometries", "frame_of_translations", "shifts_in_frame"]

_MOST_TRIALS = 10_000

_Signs = dict[tuple[int, int], int]


@dataclass(frozen=True)
class AngleFrame:
    r"""Coordinates :math:`u_i = m_i x_i - n_i \cdot x_B - 2\pi o_i` of angles x_A, in which the group shifts little.

    Here x_B are the angles that a layer reads. A group element that acts on all angles by :math:`x \mapsto M x + a`
    acts on u by the rows and columns A of M, and by shifts: multiples of :math:`2\pi / s`. In most groups s is 1, so
    that a map of u need not know of translations. A map of u becomes a map of x_A that repeats m_i times around the
    circle.

    Attributes:
        repeats: m_i, by how many different amounts the group shifts x_i and leaves x_B as it is; then an invariant
            density repeats as often. It is 0 where this is every amount, so that there are no such coordinates.
        combinations: n_i, one integer for each angle of x_B.
        origin: o_i, in parts of the full circle.
        sectors: s.

    Example:
        >>> from pyro_gflows.actions import TorusAction, TorusSplit
        >>> frame = TorusSplit(TorusAction.fixing([[2, -1]])).frame(0, [1])
        >>> isinstance(frame, AngleFrame), frame.repeats, frame.combinations  # the fixed combination 2 x1 - x2
        (True, (2,), ((1,),))
    """

    repeats: tuple[int, ...]
    combinations: tuple[tuple[int, ...], ...]
    origin: tuple[Fraction, ...]
    sectors: int = 1


def shifts_in_frame(frame: AngleFrame, each: TorusIsometry, own: Sequence[int], read: Sequence[int]) -> list[Fraction]:
    """By how much a map of all angles shifts each coordinate, in parts of the full circle.

    Args:
        frame: The coordinates.
        each: The map.
        own: The indices of the angles x_A.
        read: The indices of the angles x_B.
    """
    origin = dict(zip(own, frame.origin, strict=True))
    return [
        (
            m * each.shift[index]
            - sum(n * each.shift[k] for n, k in zip(row, read, strict=True))
            + each.signs[index] * origin[each.sources[index]]
            - origin[index]
        )
        % 1
        for index, m, row in zip(own, frame.repeats, frame.combinations, strict=True)
    ]


def frame_of_translations(fixed: Sequence[Row], own: Sequence[int], read: Sequence[int]) -> AngleFrame:
    """The coordinates of some angles under the translations that fix some integer combinations of all angles.

    Each coordinate is the fixed combination of x_i and the angles that are read in which x_i has the smallest
    coefficient m_i > 0.

    Args:
        fixed: A basis of the lattice of all fixed combinations.
        own: The indices of the angles x_A.
        read: The indices of the angles x_B.

    Example:
        >>> frame_of_translations([(1, 1)], [0], [1])  # x1 + x2
        AngleFrame(repeats=(1,), combinations=((-1,),), origin=(Fraction(0, 1),), sectors=1)
        >>> frame_of_translations([(1, 1)], [0], []).repeats
        (0,)
    """
    repeats, combinations = [], []
    for index in own:
        rest = [other for other in range(len(fixed[0])) if other != index and other not in read]
        order = [*rest, index, *read]
        place = len(rest)
        # in echelon form, a row whose first entry is in the place of x_i involves none of the angles before it
        rows = hermite_basis([[row[other] for other in order] for row in fixed])
        within = [row[place:] for row in rows if not any(row[:place])]
        if not within or not within[0][0]:
            repeats.append(0)
            combinations.append((0,) * len(read))
            continue
        m, *entries = _reduced(within[0], within[1:])
        repeats.append(m)
        combinations.append(tuple(-entry for entry in entries))
    return AngleFrame(tuple(repeats), tuple(combinations), (Fraction(0),) * len(own))


def _reduced(vector: Row, rows: Sequence[Row]) -> list[int]:
    """The vector with small entries, after integer combinations of rows in echelon form are subtracted."""
    rest = list(vector)
    for row in rows:
        column = next(index for index, entry in enumerate(row) if entry)
        times = (2 * rest[column] + row[column]) // (2 * row[column])
        rest = [entry - times * other for entry, other in zip(rest, row, strict=True)]
    return rest


def frame_of_isometries(
    generators: Sequence[TorusIsometry],
    own: Sequence[int],
    read: Sequence[int],
    *,
    elements: Sequence[TorusIsometry],
) -> AngleFrame:
    """The coordinates of some angles under a finite group of maps of all angles.

    Both sets of angles have to be mapped to themselves. Few sectors are tried first, then combinations n_i with few and
    small entries; a group without translations needs neither.

    Args:
        generators: Generators of the group.
        own: The indices of the angles x_A.
        read: The indices of the angles x_B.
        elements: All elements of the group.

    Example:
        >>> half = TorusIsometry((0, 1), (1, 1), (Fraction(1, 2), Fraction(1, 2)))  # a translation by (pi, pi)
        >>> group = [TorusIsometry.identity(2), half]
        >>> frame_of_isometries([half], [0], [1], elements=group).combinations  # x1 - x2
        ((1,),)
        >>> frame_of_isometries([half], [0], [], elements=group).repeats
        (2,)
    """
    repeats, sectors = dict.fromkeys(own, 1), 1
    combinations: dict[int, Row] = {}
    origin: dict[int, Fraction] = {}
    for orbit in _orbits(generators, own):
        unread = [each for each in elements if _is_shift(each, [*orbit, *read], fixed=read)]
        m = math.lcm(*[each.shift[orbit[0]].denominator for each in unread])
        count, rows, start = _frame_of_orbit(generators, orbit, read, m)
        sectors = math.lcm(sectors, count)
        for index in orbit:
            repeats[index], combinations[index], origin[index] = m, rows[index], start[index]
    parts = (tuple(repeats[i] for i in own), tuple(combinations[i] for i in own), tuple(origin[i] for i in own))
    return AngleFrame(*parts, sectors)


def _is_shift(each: TorusIsometry, angles: Sequence[int], *, fixed: Sequence[int]) -> bool:
    """Whether a map only shifts some angles, and some of them by nothing."""
    same = all(each.sources[index] == index and each.signs[index] == 1 for index in angles)
    return same and not any(each.shift[index] for index in fixed)


def _frame_of_orbit(
    maps: Sequence[TorusIsometry], orbit: Sequence[int], read: Sequence[int], m: int
) -> tuple[int, dict[int, Row], dict[int, Fraction]]:
    """The number of sectors, the combinations and the origin."""
    whole = math.lcm(*[(m * each.shift[index]).denominator for each in maps for index in orbit])
    largest = math.lcm(*[each.shift[index].denominator for each in maps for index in read]) // 2
    basis = _commuting(maps, orbit, read)
    for sectors in (count for count in range(1, whole + 1) if whole % count == 0):
        for entries in _small(len(basis), max(largest, 1)):
            rows = _combined(basis, entries, orbit, read)
            shifts = [_residual(each, m, rows, read) for each in maps]
            origin = _origin(
                maps, orbit, [{index: sectors * part for index, part in shift.items()} for shift in shifts]
            )
            if origin is not None:
                return sectors, rows, {index: part / sectors for index, part in origin.items()}
    raise AssertionError("with as many sectors as shifts, no combination and no origin are needed")


def _residual(each: TorusIsometry, m: int, rows: dict[int, Row], read: Sequence[int]) -> dict[int, Fraction]:
    """By how much m x_i - n_i . x_B is shifted."""
    return {
        index: (m * each.shift[index] - sum(n * each.shift[k] for n, k in zip(row, read, strict=True))) % 1
        for index, row in rows.items()
    }


def _orbits(maps: Sequence[TorusIsometry], own: Sequence[int]) -> Iterator[list[int]]:
    left = list(own)
    while left:
        orbit = [left[0]]
        for index in orbit:  # the list grows while it is read
            images = dict.fromkeys(each.sources[index] for each in maps)
            orbit += [image for image in images if image not in orbit]
        yield orbit
        left = [index for index in left if index not in orbit]


def _commuting(maps: Sequence[TorusIsometry], orbit: Sequence[int], read: Sequence[int]) -> list[_Signs]:
    """A basis of the integer matrices N with N M_B = M_A N: one for each orbit of entries whose signs agree."""
    left, basis = list(itertools.product(orbit, read)), []
    while left:
        signs: _Signs = {left[0]: 1}
        agree = True
        for pair in (waiting := [left[0]]):
            for each in maps:
                i, k = pair
                image, sign = (each.sources[i], each.sources[k]), each.signs[i] * each.signs[k] * signs[pair]
                agree = agree and signs.get(image, sign) == sign
                if image not in signs:
                    signs[image] = sign
                    waiting.append(image)
        left = [pair for pair in left if pair not in signs]
        if agree:
            basis.append(signs)
    return basis


def _small(count: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Integer vectors, those with few and small entries first."""
    values = [sign * size for size in range(1, largest + 1) for sign in (1, -1)]
    trials = (
        (places, chosen)
        for used in range(count + 1)
        for places in itertools.combinations(range(count), used)
        for chosen in itertools.product(values, repeat=used)
    )
    for places, chosen in itertools.islice(trials, _MOST_TRIALS):
        entries = [0] * count
        for place, value in zip(places, chosen, strict=True):
            entries[place] = value
        yield tuple(entries)


def _combined(
    basis: Sequence[_Signs], entries: Sequence[int], orbit: Sequence[int], read: Sequence[int]
) -> dict[int, Row]:
    total = dict.fromkeys(itertools.product(orbit, read), 0)
    for signs, entry in zip(basis, entries, strict=True):
        for pair, sign in signs.items():
            total[pair] += entry * sign
    return {index: tuple(total[index, k] for k in read) for index in orbit}


def _origin(
    maps: Sequence[TorusIsometry], orbit: Sequence[int], residuals: Sequence[dict[int, Fraction]]
) -> dict[int, Fraction] | None:
    """The origin o with o = M o + r modulo 1 for all maps, along one orbit of angles; None if there is none."""
    first = orbit[0]
    # o_i = sign t + constant, where t is the unknown origin of the first angle
    known: dict[int, tuple[int, Fraction]] = {first: (1, Fraction(0))}
    twice: set[Fraction] = set()
    waiting = [first]
    for index in waiting:
        for each, residual in zip(maps, residuals, strict=True):
            source = each.sources[index]
            # o_index = sign o_source + r, solved for o_source
            sign, constant = known[index]
            found = each.signs[index] * sign, each.signs[index] * (constant - residual[index])
            if source not in known:
                known[source] = found
                waiting.append(source)
                continue
            difference = (found[1] - known[source][1]) % 1
            if found[0] == known[source][0]:
                if difference:
                    return None
            else:  # 2 sign t + difference = 0
                twice.add((-found[0] * difference) % 1)
    if len(twice) > 1:
        return None
    start = next(iter(twice), Fraction(0)) / 2
    return {index: (sign * start + constant) % 1 for index, (sign, constant) in known.items()}
