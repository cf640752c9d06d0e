"""Windows of a tensor: their means and their largest entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from hush.mpc.compiler.rules.bounds import same
from hush.mpc.compiler.rules.reductions import mean_scale
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.functions import order
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Sizes = Sequence[int]


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows over the last dimensions; `over`: how far the last ones hang over the padding (ceil_mode)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    over: tuple[int, ...]

    @staticmethod
    def of(shape: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool) -> _Windows:
        count = len(shape)
        sizes, steps, edges, gaps = (_each(v, count) for v in (kernel, stride or kernel, padding, dilation))
        over = []
        for n, k, s, p, d in zip(shape, sizes, steps, edges, gaps, strict=True):
            room = n + 2 * p - d * (k - 1) - 1
            last = -(-room // s) if ceil else room // s
            last -= last * s >= n + p  # no window begins beyond the input
            over.append(max(0, last * s - room))
        return _Windows(sizes, steps, edges, gaps, tuple(over))

    def sides(self) -> list[int]:
        """Padding before and after each dimension, the last one first."""
        pairs = zip(self.padding, self.over, strict=True)
        return [side for p, o in reversed(list(pairs)) for side in (p, p + o)]

    def edge(self) -> list[int]:
        """The padding that counts as input where padding counts."""
        return [side for p in reversed(self.padding) for side in (p, p)]

    def __call__(self, t: Tensor) -> Tensor:
        """[..., *places, entries] of a padded tensor."""
        first, whole = t.ndim - len(self.kernel), t.ndim
        for dim, (size, step, gap) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True), first):
            t = t.unfold(dim, gap * (size - 1) + 1, step)[..., ::gap]
        return t.reshape(*t.shape[:whole], math.prod(self.kernel))


def _each(values: Sizes, count: int) -> tuple[int, ...]:
    return tuple(values) * count if len(values) == 1 else tuple(values)


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default", bound=same)
def _avg_pool(
    site: Site,
    x: Shared,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Step[Shared]:
    """Sums are local, one truncation a result; counts are public."""
    space = x.shape[x.ndim - int(str(site.node.target).split("pool")[1][0]) :]
    windows = _Windows.of(space, kernel, stride, padding, (1,), ceil_mode)
    sums = x.local(lambda t: windows(padded(t, windows.sides()))).sum(-1)
    inside = padded(torch.ones(space, device=x.device), windows.edge(), value=float(count_include_pad))
    counts = windows(padded(inside, [side for o in reversed(windows.over) for side in (0, o)])).sum(-1)
    return site.p.mul_public(
        sums, 1.0 / (counts if divisor is None else divisor), frac=x.frac, scale=mean_scale(x, site.bound(0))
    )


@rule("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", bound=same)
def _max_pool(
    site: Site,
    x: Shared,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    dilation: Sizes = (1,),
    ceil_mode: bool = False,
) -> Step[Shared]:
    """Around the input lie the smallest numbers there are."""
    space, bound = x.shape[x.ndim - int(str(site.node.target).split("pool")[1][0]) :], site.bound(0)
    windows = _Windows.of(space, kernel, stride, padding, dilation, ceil_mode)
    wide = x.local(lambda t: padded(t, windows.sides()))
    if any(windows.sides()):
        wide = site.p.add_public(wide, padded(torch.zeros(space, device=x.device), windows.sides(), value=-bound))
    return order.maximum(site.p, wide.local(windows), -1, bound=bound)
