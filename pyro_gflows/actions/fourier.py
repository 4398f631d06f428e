"""Isotypic components of images under translations: the real waves of each orbit of frequencies."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.representations import Representation
from pyro_gflows.numerics.constants import as_constants

__all__ = ["FourierDecomposition", "WaveRepresentation"]

_Frequency = tuple[int, int]


class WaveRepresentation(Representation):
    """How translations, and a point group with them, act on the real waves of an orbit of frequencies.

    Args:
        pixels: how the group acts on images of one channel.
        places: the pixels on which the waves are, shape ``(h w,)``.
        frequencies: one of each pair k and -k, in waves over the height and over the width of the grid.
        shifts: how many places there are down and to the right, (h, w).
    """

    def __init__(
        self, pixels: LinearAction, places: Tensor, frequencies: tuple[_Frequency, ...], shifts: tuple[int, int]
    ) -> None:
        self.pixels, self.places, self.frequencies, self._shifts = pixels, places, frequencies, shifts
        self.group, self.size = pixels.group, _dim(frequencies, shifts)
        self.name = f"waves of frequencies {', '.join(map(str, frequencies))}"

    def waves(self) -> Tensor:
        """The waves, orthonormal, shape ``(size, h w)``."""
        return _waves(self.frequencies, self._shifts)

    def matrices(self, elements: Tensor) -> Tensor:
        images = torch.zeros(self.size, self.pixels.numel, dtype=torch.float64, device=elements.device)
        images[:, self.places] = self.waves().to(elements.device)
        moved = self.pixels.act_each(elements[..., None], images.unflatten(-1, self.pixels.event_shape))
        return images @ moved.flatten(-3).mT

    def _key(self) -> Any:
        return (*super()._key(), self.pixels)


class FourierDecomposition(Decomposition):
    r"""The isotypic components of images (C, H, W) under translations of a periodic grid, alone or with a point group.

    Every channel, on each coset of the shifts, is one regular representation of the translations
    :math:`Z_h \times Z_w`. So the components are the pairs of frequencies k and -k; with a point group P, which takes
    waves to waves, they are the orbits of frequencies under P and -1. Nothing is averaged over the group: the change of
    basis is one fast Fourier transform. The mean comes first; components are ordered by dimension, then by frequency.

    Args:
        action: how the group acts on images; channels stay as they are.
        shifts: how many translations there are down and to the right, (h, w).
        step: translations are by multiples of so many pixels.
        point_group: how each element of the point group acts on (down, right), whole numbers of shape ``(|P|, 2, 2)``;
            with ``step=1`` only. None: there is no point group.
        too_large: why dense bases are not given; None: they are.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> components = ImageAction.translations(3, size=32).decomposition
        >>> len(components), components[0].multiplicity, components[-1].dim
        (514, 3, 2)
    """

    def __init__(
        self,
        action: LinearAction,
        shifts: tuple[int, int],
        *,
        step: int = 1,
        point_group: Tensor | None = None,
        too_large: str | None = None,
    ) -> None:
        self._shifts, pixels = shifts, action.trivial_fields(1)
        places = _cosets(shifts, step, action.event_shape)
        labels = tuple((places[:, 0] // action.event_shape[-2:].numel()).tolist())
        order = tuple(range(len(places)))
        turns = torch.eye(2, dtype=torch.int64)[None] if point_group is None else point_group
        orbits = _orbits(shifts, turns)
        self._frequencies = [frequencies for frequencies, _ in orbits]
        isotypes = []
        for frequencies, is_complex in orbits:
            # of all channels and cosets one is enough: the others carry the same representation
            waves = WaveRepresentation(pixels, places[0], frequencies, shifts)
            isotypes.append(
                Isotype(
                    (Summands(functools.partial(_one_copy, waves), 1, places, order, labels),),
                    _commutant(waves.size, is_complex=is_complex),
                    (waves, torch.eye(waves.size, dtype=torch.float64)),
                    frequencies == ((0, 0),),
                    action.event_shape,
                    too_large,
                )
            )
        super().__init__(isotypes)

    @functools.cached_property
    @as_constants()
    def _entries(self) -> tuple[Tensor, Tensor]:
        """Of which real number of the transform each coordinate is a multiple, and of which multiple."""
        entries, scales = [], []
        for k in itertools.chain.from_iterable(self._frequencies):
            place = 2 * (k[0] * self._shifts[1] + k[1])
            own = k == _negative(k, self._shifts)
            entries += [place] if own else [place, place + 1]
            scales += [1.0] if own else [math.sqrt(2), -math.sqrt(2)]
        return torch.tensor(entries), torch.tensor(scales, dtype=torch.float64)

    def _analyze(self, kind: int, local: Tensor) -> Tensor:
        entries, scales = self._entries
        spectrum = torch.fft.fft2(local.unflatten(-1, self._shifts), norm="ortho")
        return torch.view_as_real(spectrum).flatten(-3).index_select(-1, entries.to(local.device)) * scales.to(local)

    def _synthesize(self, kind: int, local: Tensor) -> Tensor:
        entries, scales = self._entries
        spectrum = local.new_zeros(*local.shape[:-1], 2 * math.prod(self._shifts))
        spectrum = spectrum.index_copy(-1, entries.to(local.device), local * scales.to(local))
        waves = torch.view_as_complex(spectrum.unflatten(-1, (*self._shifts, 2)).contiguous())
        return torch.fft.ifft2(waves, norm="ortho").real.flatten(-2)


def _negative(frequency: _Frequency, shifts: tuple[int, int]) -> _Frequency:
    return -frequency[0] % shifts[0], -frequency[1] % shifts[1]


def _dim(frequencies: tuple[_Frequency, ...], shifts: tuple[int, int]) -> int:
    """How many real waves there are: a cosine and a sine, or one wave where a frequency is its own negative."""
    return sum(1 if k == _negative(k, shifts) else 2 for k in frequencies)


def _orbits(shifts: tuple[int, int], turns: Tensor) -> list[tuple[tuple[_Frequency, ...], bool]]:
    """The orbits of frequencies, one of each pair k and -k, and whether their irrep is of complex type.

    It is where no element takes k to -k. Then the frequencies listed are those that the point group takes into each
    other, so that multiplication of all their complex waves by i commutes with the group.
    """
    moves = [tuple(map(tuple, turn)) for turn in turns.tolist()]
    found, seen = [], set()
    for k in itertools.product(range(shifts[0]), range(shifts[1])):
        if k in seen:
            continue
        orbit = {((a * k[0] + b * k[1]) % shifts[0], (c * k[0] + d * k[1]) % shifts[1]) for (a, b), (c, d) in moves}
        negatives = {_negative(each, shifts) for each in orbit}
        seen |= orbit | negatives
        is_complex = not orbit & negatives
        listed = orbit if is_complex else {min(each, _negative(each, shifts)) for each in orbit}
        found.append((tuple(sorted(listed)), is_complex))
    return sorted(found, key=lambda item: (item[0] != ((0, 0),), _dim(item[0], shifts), item[0]))


def _commutant(dim: int, *, is_complex: bool) -> Tensor:
    identity = torch.eye(dim, dtype=torch.float64)
    if not is_complex:
        return identity[None]
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    return torch.stack([identity, torch.block_diag(*[quarter] * (dim // 2))])


def _cosets(shifts: tuple[int, int], step: int, event_shape: torch.Size) -> Tensor:
    """The pixels that each channel's cosets of the shifts consist of, in the order of the shifts, ``(n, h w)``."""
    down, right = shifts
    entries = torch.arange(event_shape.numel()).reshape(event_shape[0], down, step, right, step)
    return entries.permute(0, 2, 4, 1, 3).reshape(-1, down * right)


def _one_copy(waves: WaveRepresentation) -> Tensor:
    return waves.waves()[None]


def _waves(frequencies: tuple[_Frequency, ...], shifts: tuple[int, int]) -> Tensor:
    """The orthonormal cosine and sine of each frequency, shape ``(dim, h w)``."""
    whole = math.prod(shifts)
    down, right = torch.arange(shifts[0])[:, None], torch.arange(shifts[1])
    rows = []
    for k in frequencies:
        # the phase as a whole number of parts of a turn
        parts = (k[0] * shifts[1] * down + k[1] * shifts[0] * right).flatten() % whole
        angle = 2 * math.pi * parts.double() / whole
        if k == _negative(k, shifts):
            rows.append(angle.cos().round())
        else:
            rows += [math.sqrt(2) * angle.cos(), math.sqrt(2) * angle.sin()]
    return torch.stack(rows) / math.sqrt(whole)
