"""Isotypic components of images under translations: the real waves of each pair of frequencies k and -k."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.constants import as_constants
from pyro_gflows.actions.grid import TranslationGroup
from pyro_gflows.actions.isotype import Decomposition, Isotype, Summands
from pyro_gflows.actions.representations import Representation

__all__ = ["FourierDecomposition", "WaveRepresentation"]


class WaveRepresentation(Representation):
    r"""How translations turn the cosine and the sine of one frequency: a rotation by :math:`2\pi\,k \cdot s`.

    A frequency that is its own negative has no sine; there every translation is 1 or -1.

    Args:
        group: the translations.
        frequency: k, in waves over the height and over the width of the grid.
    """

    def __init__(self, group: TranslationGroup, frequency: tuple[int, int]) -> None:
        self.group, self.frequency = group, frequency
        self._periods = group.shifts
        self.size = 1 if _is_own_negative(frequency, group.shifts) else 2
        self.name = f"waves of frequency {frequency}"

    def matrices(self, elements: Tensor) -> Tensor:
        down, right = elements // self._periods[1], elements % self._periods[1]
        angle = _angle(self.frequency, self._periods, down, right)
        if self.size == 1:
            return angle.cos().round()[..., None, None]
        c, s = angle.cos(), angle.sin()
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)

    def _key(self) -> Any:
        return (*super()._key(), self.frequency)


class FourierDecomposition(Decomposition):
    r"""The isotypic components of images (C, H, W) under the translations of a grid.

    Every channel, on each coset of the shifts, is one regular representation of :math:`Z_h \times Z_w`, so the
    components are the pairs of frequencies k and -k, each with the multiplicity :math:`C H W / (h w)`: first frequency
    0, then those that are their own negatives, then the others row by row. Nothing is averaged over the group; the
    change of basis is one fast Fourier transform.

    Args:
        group: the translations.
        event_shape: (C, H, W).
        too_large: why dense bases are not given; None: they are.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> components = ImageAction.translations(3, size=32).decomposition
        >>> len(components), components[0].multiplicity, components[-1].dim
        (514, 3, 2)
    """

    def __init__(self, group: TranslationGroup, event_shape: torch.Size, *, too_large: str | None = None) -> None:
        self._periods = down, right = group.shifts
        self._frequencies = sorted(
            {min((k, l), (-k % down, -l % right)) for k in range(down) for l in range(right)},
            key=lambda k: (k != (0, 0), not _is_own_negative(k, group.shifts), k),
        )
        places = _cosets(group, event_shape)
        labels = tuple((places[:, 0] // event_shape[-2:].numel()).tolist())
        order = tuple(range(len(places)))
        isotypes = []
        for k in self._frequencies:
            irrep = WaveRepresentation(group, k)
            identity = torch.eye(irrep.size, dtype=torch.float64)
            quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
            summands = Summands(functools.partial(_waves, k, group.shifts), 1, places, order, labels)
            commutant = identity[None] if irrep.size == 1 else torch.stack([identity, quarter])
            isotypes.append(Isotype((summands,), commutant, (irrep, identity), k == (0, 0), event_shape, too_large))
        super().__init__(isotypes)

    @functools.cached_property
    @as_constants()
    def _entries(self) -> tuple[Tensor, Tensor]:
        """Of which real number of the transform each coordinate is a multiple, and of which multiple."""
        entries, scales = [], []
        for k in self._frequencies:
            place = 2 * (k[0] * self._periods[1] + k[1])
            own = _is_own_negative(k, self._periods)
            entries += [place] if own else [place, place + 1]
            scales += [1.0] if own else [math.sqrt(2), -math.sqrt(2)]
        return torch.tensor(entries), torch.tensor(scales, dtype=torch.float64)

    def _analyze(self, kind: int, local: Tensor) -> Tensor:
        entries, scales = self._entries
        spectrum = torch.fft.fft2(local.unflatten(-1, self._periods), norm="ortho")
        return torch.view_as_real(spectrum).flatten(-3).index_select(-1, entries.to(local.device)) * scales.to(local)

    def _synthesize(self, kind: int, local: Tensor) -> Tensor:
        entries, scales = self._entries
        spectrum = local.new_zeros(*local.shape[:-1], 2 * math.prod(self._periods))
        spectrum = spectrum.index_copy(-1, entries.to(local.device), local * scales.to(local))
        waves = torch.view_as_complex(spectrum.unflatten(-1, (*self._periods, 2)).contiguous())
        return torch.fft.ifft2(waves, norm="ortho").real.flatten(-2)


def _is_own_negative(frequency: tuple[int, int], periods: tuple[int, int]) -> bool:
    return all(2 * k % period == 0 for k, period in zip(frequency, periods, strict=True))


def _cosets(group: TranslationGroup, event_shape: torch.Size) -> Tensor:
    """The pixels that each channel's cosets of the shifts consist of, in the order of the shifts, ``(n, h w)``."""
    step, (down, right) = group.step, group.shifts
    entries = torch.arange(event_shape.numel()).reshape(event_shape[0], down, step, right, step)
    return entries.permute(0, 2, 4, 1, 3).reshape(-1, down * right)


def _waves(frequency: tuple[int, int], periods: tuple[int, int]) -> Tensor:
    """The orthonormal cosine and sine of one frequency on the grid, shape ``(1, d, h w)``."""
    down, right = (torch.arange(period) for period in periods)
    angle = _angle(frequency, periods, down[:, None], right).flatten()
    own = _is_own_negative(frequency, periods)
    rows = angle.cos()[None].round() if own else math.sqrt(2) * torch.stack([angle.cos(), angle.sin()])
    return rows[None] / math.sqrt(math.prod(periods))


def _angle(frequency: tuple[int, int], periods: tuple[int, int], down: Tensor, right: Tensor) -> Tensor:
    """The phase of a wave at whole places, from a whole number of parts of a turn."""
    whole = math.prod(periods)
    parts = (frequency[0] * periods[1] * down + frequency[1] * periods[0] * right) % whole
    return 2 * math.pi * parts.double() / whole
