"""What background removal left: a weak field without curvature inside the brain."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.background.pdf import PDF
from k2chi.background.result import local_field, masked
from k2chi.data import Field, Size, Vector
from k2chi.ops.box import box_around
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.fourier import SPACE
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track


@dataclass(frozen=True)
class WeakHarmonic:
    """Split a field into what a map inside can explain and what has no curvature; return the field less that.

    min over χ, φ of ½‖w (Dχ + φ − f)‖² + α‖∇χ‖₁ + β/2 ‖M h²∇²φ‖², χ zero outside the support;
    f_local = f − φ.
    Milovic et al. 2019, MRM 81:1399, doi:10.1002/mrm.27483, there as part of an inversion.
    φ has both signs: it takes background that was left, and gives back the field of sources near the edge
    that a projection took. A total field goes through `PDF` first. h is the geometric mean of the edges; ∇²
    has the stencil of 19 points whose error vanishes to fourth order for harmonic fields, and holds where all
    of them lie in the mask. χ and φ are solved for together, exactly, in each alternation. Keeps the whole
    mask. Three pairs of transforms an iteration.
    """

    alpha: float = 1e-4
    """Strength of total variation of χ [ppm mm]; larger: more is left to the harmonic field."""
    beta: float = 1e3
    """Weight of curvature of φ [no unit]; smaller: φ takes more of the local field."""
    iterations: int = 200
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update of χ is this fraction of it; 0 runs all iterations."""
    start: int = 50
    """Conjugate-gradient steps of `PDF` on a total field; 0: the split does it all, which takes very long."""
    edge_ppm_per_mm: float = 0.05
    """Gradient of χ at which the split begins to shrink [ppm/mm]; only speed depends on it."""
    mu_curvature: float = 10.0
    """Weight of the split of φ's curvature [no unit]; only speed depends on it."""
    mu_support: float = 0.1
    """Weight of the split of the support [no unit]; only speed depends on it."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "edge_ppm_per_mm", "mu_curvature", "mu_support"):
            if not getattr(self, name) > 0:
                raise ValueError(f"WeakHarmonic {name} {getattr(self, name)} must be positive")
        if self.iterations < 1 or self.start < 0:
            raise ValueError("WeakHarmonic needs at least one iteration, and start must not be negative")

    def __call__(self, total: Field) -> Field:
        """The field without its harmonic part, over its whole mask; `total` may be a local field too."""
        given = total
        if not total.local and self.start:
            given = PDF(iterations=self.start)(total)
        support = given.mask if given.support is None else given.support | given.mask
        voxel = total.grid.voxel_mm
        box = box_around(support, factor=1.25)
        grid = box.grid(total.grid)
        f, mask = masked(given, box)
        f = torch.where(mask, f - f[mask].mean(), f)
        w2 = torch.where(mask, box.take(given.weight), torch.zeros_like(f)).square()
        inside = box.take(support)
        d = dipole_kernel(grid, grid.shape).to(f.device)
        curvature = isotropic_laplacian(grid.shape, voxel).to(f.device)
        stiff = self.beta * whole_stencil(mask).to(f.dtype)

        # χ and φ of one alternation: the two-by-two system [a, d; d, c] at each frequency
        mu1, mu3, mu4 = self.alpha / self.edge_ppm_per_mm, self.mu_curvature, self.mu_support
        a = mu1 * laplacian_symbol(grid.shape, voxel).to(f.device) + d.square() + mu4
        c = 1 + mu3 * curvature.square()
        inverse = 1 / (a * c - d.square())

        def spectrum(x: Tensor) -> Tensor:
            k: Tensor = torch.fft.rfftn(x, dim=SPACE)
            return k

        def volume(k: Tensor) -> Tensor:
            x: Tensor = torch.fft.irfftn(k, s=grid.shape, dim=SPACE)
            return x

        tv = TVSplit(grid, torch.full_like(f, self.edge_ppm_per_mm))
        x, s2, s3, s4, rhs, bend = (torch.zeros_like(f) for _ in range(6))
        z2 = f
        harmonic = spectrum(f) * 0
        for _ in track(self.iterations, "weak harmonic"):
            k = spectrum(z2 - s2)
            for_chi = d * k + mu1 * spectrum(rhs)
            for_phi = k + mu3 * curvature * spectrum(bend)
            chi = (c * for_chi - d * for_phi).mul_(inverse)
            harmonic = (a * for_phi - d * for_chi).mul_(inverse)
            before, x = x, volume(chi)
            v2 = volume(d * chi + harmonic) + s2
            z2 = (w2 * f + v2) / (w2 + 1)
            s2 = v2 - z2
            v3 = volume(curvature * harmonic) + s3
            s3 = v3 * stiff / (mu3 + stiff)
            bend = v3 - 2 * s3
            v4 = x + s4
            rhs = tv.step(x) + (mu4 / mu1) * (v4 * inside)
            s4 = v4 * ~inside
            if 0 < float((x - before).norm() / x.norm().clamp_min(1e-30)) <= self.tolerance:
                break
        return local_field(given, box, f - volume(harmonic))


def isotropic_laplacian(shape: Size, voxel_mm: Vector) -> Float[Tensor, "x y h"]:
    """Multiplier of h²∇² on the half spectrum, h the geometric mean of the edges: 19 points.

    Σ Lᵢ + Σ (hᵢ² + hⱼ²)/12 LᵢLⱼ with the three-point Lᵢ. The leading error of Σ Lᵢ is Σ hᵢ²/12 ∂ᵢ⁴, and the
    products turn that into a derivative of ∇², which is zero for a harmonic field.
    """
    h2 = (voxel_mm[0] * voxel_mm[1] * voxel_mm[2]) ** (2 / 3)
    parts = []
    for axis, (n, v) in enumerate(zip(shape, voxel_mm, strict=True)):
        k = (torch.fft.rfftfreq(n) if axis == 2 else torch.fft.fftfreq(n)).double()
        part = (2 * torch.cos(2 * torch.pi * k) - 2) / v**2
        parts.append(part.reshape([-1 if axis == j else 1 for j in range(3)]))
    out = parts[0] + parts[1] + parts[2]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        out = out + (voxel_mm[i] ** 2 + voxel_mm[j] ** 2) / 12 * parts[i] * parts[j]
    symbol: Tensor = (h2 * out).float()
    return symbol


def whole_stencil(mask: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Voxels whose 18 neighbours across faces and edges are in the mask too; wraps around the array."""
    out = mask.clone()
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            for k in (-1, 0, 1):
                if 0 < abs(i) + abs(j) + abs(k) <= 2:
                    out &= torch.roll(mask, (i, j, k), (0, 1, 2))
    return out
