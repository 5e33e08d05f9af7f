"""Sources on pieces of voxels whose field is known as the mean over whole voxels."""

from math import prod, tau

import torch
from jaxtyping import Complex, Float, Inexact, Shaped
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.dipole import dipole_kernel, fitting
from k2chi.ops.finite import laplacian_symbol

MOST = 4
"""Pieces of one axis, at most."""


def pieces_of(voxel_mm: Vector, b0_dir: Vector) -> Size:
    """Pieces along each axis: long edges about as short as the shortest; of cubes, two along the two axes
    nearest to B0. One axis stays whole."""
    short = min(voxel_mm)
    n = [min(MOST, round(v / short)) for v in voxel_mm]
    if max(n) == 1:
        far = min(range(3), key=lambda a: (round(abs(b0_dir[a]), 5), a))
        n = [1 if a == far else 2 for a in range(3)]
    return n[0], n[1], n[2]


def refuse_parts(parts: Size | None, what: str) -> None:
    """ValueError for pieces that cannot be; None leaves the choice."""
    if parts is not None and (min(parts) != 1 or max(parts) > MOST):
        raise ValueError(f"{what} parts {parts}: give 1 to {MOST} for each axis, and 1 for one of them")


class Pieces:
    """D on the pieces and means over voxels, in Fourier space.

    Frequencies of the pieces that whole voxels cannot tell apart, aliases, share one equation. So what
    alternating directions ask of χ, (l/T + μ DAᵀAD)χ = r/T + μ DAᵀz with l diagonal in Fourier space and A
    the mean over T pieces, is of rank one beside the diagonal for each group of aliases, and is solved by
    division (Sherman and Morrison). With one piece a voxel it is the usual division.
    """

    def __init__(
        self, grid: Grid, parts: Size, device: torch.device | str = "cpu",
        kernel: Float[Tensor, "x y h"] | None = None,
    ) -> None:  # fmt: skip
        """`kernel`: D on the half spectrum, for voxels that are not cut; left out, the one that fits."""
        refuse_parts(parts, "Pieces")
        (x, y, z), (a, b, c), (u, v, w) = grid.shape, parts, grid.voxel_mm
        self.parts, self.coarse, self.count = parts, grid.shape, prod(parts)
        self.grid = Grid.of((x * a, y * b, z * c), (u / a, v / b, w / c), grid.b0_dir)
        # a half spectrum needs an axis that is not cut, or aliases would lie in its missing half
        whole = max(i for i in range(3) if parts[i] == 1)
        self.order = (*(i for i in range(3) if i != whole), whole)
        self.axes = tuple(i - 3 for i in self.order)
        self.device = torch.device(device)
        mean = [
            _mean_of_pieces(n, r).reshape([-1 if i == axis else 1 for i in range(3)])
            for axis, (n, r) in enumerate(zip(self.grid.shape, parts, strict=True))
        ]
        mean[whole] = torch.ones(1, 1, 1)
        if kernel is None or self.count > 1:
            kernel = self._half(dipole_kernel(turned := self._turned(), turned.shape, fitting(self.grid)))
        self.u = kernel if self.count == 1 else kernel * (mean[0] * mean[1] * mean[2]).to(self.device)
        """D, then the mean over a voxel."""

    def laplacian(self, voxel_mm: Vector | None = None) -> Float[Tensor, "a b c"]:
        """The symbol of −∇² on the pieces, in their axes' units or others."""
        turned = self._turned()
        u, v, w = (voxel_mm[i] for i in self.order) if voxel_mm else turned.voxel_mm
        return self._half(laplacian_symbol(turned.shape, (u, v, w)))

    def _turned(self) -> Grid:
        i, j, k = self.order
        n, v, b = self.grid.shape, self.grid.voxel_mm, self.grid.b0_dir
        return Grid.of((n[i], n[j], n[k]), (v[i], v[j], v[k]), (b[i], b[j], b[k]))

    def _half(self, x: Float[Tensor, "i j k"]) -> Float[Tensor, "a b c"]:
        back = [self.order.index(i) for i in range(3)]
        return x.permute(back).contiguous().to(self.device)

    # ---- between pieces and voxels

    def repeated(self, x: Shaped[Tensor, "*n x y z"]) -> Shaped[Tensor, "*n X Y Z"]:
        """Every piece has its voxel's value."""
        for axis, r in zip((-3, -2, -1), self.parts, strict=True):
            x = x.repeat_interleave(r, axis) if r > 1 else x
        return x

    def averaged(self, x: Float[Tensor, "*n X Y Z"]) -> Float[Tensor, "*n x y z"]:
        """Mean over the pieces of each voxel."""
        return x if self.count == 1 else self._grouped(x, self.coarse, last=True).mean((-5, -3, -1))

    def _grouped(self, x: Tensor, size: tuple[int, ...], last: bool) -> Tensor:
        pairs = [(n, r) if last else (r, n) for n, r in zip(size, self.parts, strict=True)]
        return x.reshape(*x.shape[:-3], *(i for pair in pairs for i in pair))

    def gathered(self, k: Inexact[Tensor, "*n A B C"]) -> Inexact[Tensor, "*n a b c"]:
        """Mean over the frequencies that whole voxels cannot tell apart."""
        if self.count == 1:
            return k
        size = tuple(n // r for n, r in zip(k.shape[-3:], self.parts, strict=True))
        return self._grouped(k, size, last=False).mean((-6, -4, -2))

    def spread(self, k: Complex[Tensor, "*n a b c"]) -> Complex[Tensor, "*n A B C"]:
        """The same value at all of them."""
        return k if self.count == 1 else k.repeat(*[1] * (k.ndim - 3), *self.parts)

    # ---- transforms

    def spectrum(self, x: Float[Tensor, "*n x y z"]) -> Complex[Tensor, "*n a b c"]:
        k: Tensor = torch.fft.rfftn(x, dim=self.axes)
        return k

    def volume(self, k: Complex[Tensor, "*n a b c"], size: Size) -> Float[Tensor, "*n x y z"]:
        x: Tensor = torch.fft.irfftn(k, s=[size[i] for i in self.order], dim=self.axes)
        return x

    def pulled(self, left: Float[Tensor, "*n x y z"]) -> Float[Tensor, "*n X Y Z"]:
        """DAᵀ of a field: the change of χ on the pieces that it wants."""
        return self.volume(self.u.conj() * self.spread(self.spectrum(left)), self.grid.shape)


class Division:
    """Solves for χ on pieces with fixed weights of the splits."""

    def __init__(self, pieces: Pieces, rest: Float[Tensor, "a b c"], mu_data: float | Tensor) -> None:
        """`rest` is l."""
        self.pieces, self.mu = pieces, mu_data
        if pieces.count == 1:  # no aliases: one division, without what they cost
            self.kept = 1 / (rest + mu_data * pieces.u.square())
            return
        self.kept = 1 / rest
        self.shared = pieces.u * self.kept
        self.gain = pieces.gathered((pieces.u.conj() * self.shared).real) * pieces.count

    def __call__(
        self, r: Float[Tensor, "*n X Y Z"], z: Float[Tensor, "*n x y z"]
    ) -> tuple[Float[Tensor, "*n X Y Z"], Float[Tensor, "*n x y z"]]:
        """χ of the right-hand side `r` and the field's copy `z`; and the field ADχ."""
        p = self.pieces
        if p.count == 1:
            k = (p.spectrum(r) + self.mu * p.u * p.spectrum(z)) * self.kept
            return p.volume(k, p.coarse), p.volume(k * p.u, p.coarse)
        k = p.spectrum(r)
        free = p.gathered(self.shared * k)
        pull = self.mu * (p.spectrum(z) - free) / (1 + self.mu * self.gain)
        k = k * self.kept + self.shared.conj() * p.spread(p.count * pull)
        return p.volume(k, p.grid.shape), p.volume(free + self.gain * pull, p.coarse)


def _mean_of_pieces(n: int, parts: int) -> Complex[Tensor, " n"]:
    """What taking the mean over `parts` samples, each and those after it, does to each of `n` frequencies."""
    turn = tau * torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(parts) / n
    return torch.polar(torch.ones_like(turn), turn).mean(1).to(torch.complex64)
