"""Isotypic components of images under translations, which are waves, computed by fast Fourier transforms."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.representations import Representation
from pyro_gflows.numerics.constants import as_constants, made_once

__all__ = ["FourierDecomposition", "WaveRepresentation"]

_Frequency = tuple[int, int]


class WaveRepresentation(Representation):
    """The representation of translations, with or without a point group, on real waves.

    Translations shift the phase of a cosine and sine wave, and the point group sends the waves of one frequency to
    those of another. So the waves of all frequencies that the point group sends to each other form one representation.

    Args:
        pixels: How the group acts on images of one channel.
        places: The pixels on which the waves are defined, shape ``(h w,)``.
        frequencies: One frequency of each pair k and -k, in periods over the height and the width of the grid.
        shifts: The number of shifts down and to the right, (h, w).
    """

    def __init__(
        self, pixels: LinearAction, places: Tensor, frequencies: tuple[_Frequency, ...], shifts: tuple[int, int]
    ) -> None:
        self.pixels, self.places, self.frequencies, self._shifts = pixels, places, frequencies, shifts
        self.group, self.size = pixels.group, _dim(frequencies, shifts)
        self.name = f"waves of frequencies {', '.join(map(str, frequencies))}"

    def waves(self) -> Tensor:
        """The orthonormal waves, shape ``(size, h w)``."""
        return _waves(self.frequencies, self._shifts)

    def matrices(self, elements: Tensor) -> Tensor:
        images = torch.zeros(self.size, self.pixels.numel, dtype=torch.float64, device=elements.device)
        images[:, self.places] = self.waves().to(elements.device)
        acted = self.pixels.act_each(elements[..., None], images.unflatten(-1, self.pixels.event_shape))
        return images @ acted.flatten(-3).mT

    def _key(self) -> Any:
        return (*super()._key(), self.pixels)


class FourierDecomposition(Decomposition):
    r"""The isotypic components of images (C, H, W) under translations of a periodic grid, alone or with a point group.

    Translations only shift the phase of a wave, so under translations alone a component consists of the cosine and the
    sine waves of one frequency k (and -k). A point group P sends waves to waves, and a component then consists of the
    waves of all frequencies that P sends to each other (an orbit of frequencies under P and -1). The change of basis is
    one fast Fourier transform, and no average over the group is needed. The mean comes first; the other components are
    ordered by dimension, then by frequency.

    Args:
        action: How the group acts on images. Channels stay as they are.
        shifts: The number of translations down and to the right, (h, w).
        step: Translations are by multiples of this number of pixels.
        point_group: The integer matrices by which the elements of the point group act on shifts (down, right), shape
            ``(|P|, 2, 2)``, which needs ``step=1``; or None, if there is no point group.
        too_large: The reason why dense bases are not available, or None where they are.

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
        matrices = torch.eye(2, dtype=torch.int64)[None] if point_group is None else point_group
        orbits = _orbits(shifts, matrices)
        self._frequencies = [frequencies for frequencies, _ in orbits]
        isotypes = []
        for frequencies, is_complex in orbits:
            # one channel and one coset is enough, as the others carry the same representation
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

    @made_once
    @as_constants()
    def _entries(self) -> tuple[Tensor, Tensor]:
        """For each coordinate, the entry of the transform of which it is a multiple, and the factor."""
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
    """The number of real waves: a cosine and a sine for each frequency, or one wave where k is its own negative."""
    return sum(1 if k == _negative(k, shifts) else 2 for k in frequencies)


def _orbits(shifts: tuple[int, int], matrices: Tensor) -> list[tuple[tuple[_Frequency, ...], bool]]:
    """The orbits of frequencies, one of each pair k and -k, and whether their irrep is of complex type.

    The irrep is of complex type where no element sends k to -k. Then the listed frequencies are those that the point
    group sends to each other, so that multiplication of all their complex waves by i commutes with the group.
    """
    linear = [tuple(map(tuple, matrix)) for matrix in matrices.tolist()]
    found, seen = [], set()
    for k in itertools.product(range(shifts[0]), range(shifts[1])):
        if k in seen:
            continue
        orbit = {((a * k[0] + b * k[1]) % shifts[0], (c * k[0] + d * k[1]) % shifts[1]) for (a, b), (c, d) in linear}
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
    by_90_degrees = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    return torch.stack([identity, torch.block_diag(*[by_90_degrees] * (dim // 2))])


def _cosets(shifts: tuple[int, int], step: int, event_shape: torch.Size) -> Tensor:
    """The pixels of each coset of the shifts in each channel, in the order of the shifts, shape ``(n, h w)``."""
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
        # the phase as an integer multiple of 360 degrees / (h w)
        parts = (k[0] * shifts[1] * down + k[1] * shifts[0] * right).flatten() % whole
        angle = 2 * math.pi * parts.double() / whole
        if k == _negative(k, shifts):
            rows.append(angle.cos().round())
        else:
            rows += [math.sqrt(2) * angle.cos(), math.sqrt(2) * angle.sin()]
    return torch.stack(rows) / math.sqrt(whole)
