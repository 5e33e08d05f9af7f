"""Missing lines of k-space from their sampled neighbours in all coils."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import KSpace
from k2chi.progress import track
from k2chi.recon.calibrate import calibration
from k2chi.recon.lattice import Lattice, Pair, centred, find_lattice, reach
from k2chi.recon.sense import per_echo

CHUNK_BYTES = 2**26
"""Most memory for the samples that are gathered at once."""
PLANE = (-2, -1)


@dataclass(frozen=True)
class GRAPPA:
    """Fill each missing line with the weighted sum of its sampled neighbours in all coils.

    k_c(k) = Σ w_cc'(δ) k_c'(k + δ); the weights are those that predict the fully sampled centre best:
    min ‖A w − b‖² + λ² (tr AᴴA / n) ‖w‖². One set of weights serves all echoes. Then coils are combined with
    the maps, x = Σ S*m / Σ|S|², and what was measured stays as it is.

    Griswold et al. 2002, MRM 47:1202, doi:10.1002/mrm.10171; in 3D with sheared patterns: Breuer et al. 2006,
    MRM 55:549, doi:10.1002/mrm.20787.
    The lattice is found from the mask; random masks are refused (`CGSENSE` takes them). Lines beyond partial
    Fourier or an elliptical shutter stay zero. Weights cost as the third power of coils times neighbours:
    compress to 16 coils or fewer first.
    """

    kernel: tuple[int, int, int] = (5, 4, 4)
    """Neighbours along readout and the two directions of the lattice; along a sampled line one less if
    even, as many on either side."""
    regularisation: float = 0.01
    """λ, relative to the root-mean-square singular value of A; larger: less noise, more aliasing."""
    points: int = 32
    """Points about the centre along each axis, at most, that calibrate; more cost time and change little."""

    def __post_init__(self) -> None:
        if min(self.kernel) < 1 or self.kernel[0] % 2 == 0:
            raise ValueError(
                f"GRAPPA kernel {self.kernel}: choose an odd size along the readout, 1 or more along others"
            )
        if self.regularisation < 0 or self.points < self.kernel[0]:
            raise ValueError(
                f"GRAPPA regularisation {self.regularisation}, points {self.points}: choose 0 or more, and "
                f"at least the {self.kernel[0]} points of the kernel"
            )

    def __call__(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "echo x y z"]:
        """The combined image of each echo, with weights from the reference or the first echo."""
        return self.trained(kspace)(kspace, maps)

    def g_factor(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Float[Tensor, "x y z"]:
        """How much more noise there is than that of fewer samples alone; zero where no coil sees.

        From the weights as they act in the image, for white noise: g = √(Σ|U|²/Σ|S|²)/R with
        U = Sᴴ(1 + W). Lines of the centre that are measured and kept lower the noise further.
        Breuer et al. 2009, MRM 62:739, doi:10.1002/mrm.22066.
        """
        return self.trained(kspace).g_factor(maps)

    def trained(self, kspace: KSpace) -> "Weights":
        """The weights, from the reference scan if there is one, else from the centre of the first echo."""
        lattice = find_lattice(kspace.sampled[0].any(0))
        taps = min(self.kernel[0], kspace.data.shape[2] - 1 + kspace.data.shape[2] % 2)
        if not lattice.gaps:
            return Weights(lattice, taps, {}, {})
        steps = lattice.around(self.kernel[1:])
        around = {gap: tuple((y - gap[0], z - gap[1]) for y, z in steps) for gap in lattice.gaps}
        scan = replace(kspace.scan, te_s=kspace.scan.te_s[:1])
        first = replace(kspace, data=kspace.data[:1], sampled=kspace.sampled[:1], scan=scan)
        centre = calibration(first, self.points)[0]
        values = _weights(centre, taps, steps, lattice.gaps, self.regularisation)
        return Weights(lattice, taps, around, dict(zip(lattice.gaps, values, strict=True)))


@dataclass(frozen=True, eq=False)
class Weights:
    """Trained weights: fill k-space that was undersampled alike, in any echo."""

    lattice: Lattice
    """The undersampling that they fit; its offset may differ from echo to echo."""
    taps: int
    """Neighbours along the readout."""
    around: dict[Pair, tuple[Pair, ...]]
    """For each gap of the lattice's cell, the steps to its neighbours."""
    values: dict[Pair, Complex[Tensor, "target source tap step"]]
    """For each gap, what each neighbour counts."""

    def __call__(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "echo x y z"]:
        """The combined image of each echo."""
        return torch.stack([self._image(y, seen[:1], maps) for y, seen in self._echoes(kspace, maps)])

    def filled(self, kspace: KSpace) -> Complex[Tensor, "echo coil kx ky kz"]:
        """K-space of each echo and coil without gaps."""
        out = torch.empty_like(kspace.data)
        for e, (y, seen) in enumerate(self._echoes(kspace, kspace.data[0])):
            for here, planes in self._planes(y, seen[:1]):
                out[e][:, here] = planes
            out[e] = torch.fft.fft(out[e], dim=1, norm="ortho")
        return out

    def g_factor(self, maps: Complex[Tensor, "coil x y z"]) -> Float[Tensor, "x y z"]:
        """How much more noise there is than that of fewer samples alone; see `GRAPPA.g_factor`."""
        coils, nx, ny, nz = maps.shape
        out = maps.real.new_zeros(nx, ny, nz)
        for i in track(nx, "g-factor"):
            kernel = maps.new_zeros(coils, coils, ny, nz)
            kernel[range(coils), range(coils), 0, 0] = 1
            for gap, steps in self.around.items():
                at = self._at_plane(gap, slice(i, i + 1), nx)[0]
                for k, (y, z) in enumerate(steps):
                    kernel[:, :, y % ny, z % nz] += at[:, :, k]
            seen = torch.zeros_like(maps[:, i])
            for s, row in zip(maps[:, i], kernel, strict=True):
                seen += s.conj() * torch.fft.fft2(row)
            power = maps[:, i].abs().square().sum(0)
            out[i] = torch.where(power > 0, seen.abs().square().sum(0) / power.clamp_min(1e-20), 0).sqrt()
        return out / self.lattice.acceleration

    @cached_property
    def _pad(self) -> int:
        """How far neighbours reach."""
        return max((abs(v) for steps in self.around.values() for step in steps for v in step), default=0)

    def _echoes(
        self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]
    ) -> Iterator[tuple[Complex[Tensor, "coil x y z"], Tensor]]:
        """Data of each echo, and where it was sampled (any point of the readout)."""
        for y, seen in per_echo(kspace, maps):
            yield y, seen.any(0, keepdim=True)

    def _image(
        self, y: Complex[Tensor, "coil kx ky kz"], seen: Tensor, maps: Complex[Tensor, "coil x y z"]
    ) -> Complex[Tensor, "x y z"]:
        out = torch.empty_like(y[0])
        for here, planes in self._planes(y, seen):
            images = torch.fft.ifftn(planes, dim=PLANE, norm="ortho")
            own = maps[:, here]
            power = own.abs().square().sum(0)
            combined = (own.conj() * images).sum(0)
            out[here] = torch.where(power > 0, combined / power.clamp_min(1e-20), 0)
        return out

    def _planes(
        self, y: Complex[Tensor, "coil kx ky kz"], seen: Tensor
    ) -> Iterator[tuple[slice, Complex[Tensor, "coil p ky kz"]]]:
        """Parts of the image along the readout, gaps filled in the plane of the phase encodings."""
        coils, nx, ny, nz = y.shape
        targets = self._targets(seen[0])
        most = max((len(t) for t in targets.values()), default=1) * coils * 8
        steps = max((len(s) for s in self.around.values()), default=1)
        planes = max(1, min(nx, CHUNK_BYTES // max(most * steps, 8 * coils * ny * nz)))
        hybrid = torch.empty_like(y)
        for k, h in zip(y, hybrid, strict=True):
            h.copy_(torch.fft.ifft(k, dim=0, norm="ortho"))
        for n in track(-(-nx // planes), "GRAPPA"):
            here = slice(n * planes, min((n + 1) * planes, nx))
            yield here, self._filled(hybrid[:, here], targets, here, nx)

    def _targets(self, seen: Tensor) -> dict[Pair, Tensor]:
        """For each gap of the cell, the missing places in the padded plane, centre in the middle."""
        if not self.around:
            return {}
        found = find_lattice(seen)
        if (found.rows, found.shear, found.columns) != (
            self.lattice.rows,
            self.lattice.shear,
            self.lattice.columns,
        ):
            raise ValueError(
                f"an echo is sampled as {found}, but the weights are for {self.lattice}: GRAPPA needs "
                "echoes that are undersampled alike; reconstruct with CGSENSE"
            )
        mask, fy, fz = centred(seen)
        missing = reach(mask) & ~mask
        width, pad = mask.shape[1] + 2 * self._pad, self._pad
        places = {}
        for gap in self.around:
            y, z = (missing & found.holds(fy - gap[0], fz - gap[1])).nonzero()
            places[gap] = torch.from_numpy((y + pad) * width + z + pad).to(seen.device)
        return places

    def _filled(
        self, planes: Complex[Tensor, "coil p ky kz"], targets: dict[Pair, Tensor], here: slice, nx: int
    ) -> Complex[Tensor, "coil p ky kz"]:
        """Planes of hybrid space (image along the readout) without gaps."""
        if not targets:
            return planes
        coils, p, ny, nz = planes.shape
        pad, width = self._pad, nz + 2 * self._pad
        padded = torch.nn.functional.pad(torch.fft.fftshift(planes, dim=PLANE), (pad, pad, pad, pad))
        flat = padded.movedim(0, 1).reshape(p, coils, -1)
        out = flat.clone()
        for gap, places in targets.items():
            w = self._at_plane(gap, here, nx).flatten(2)
            shift = torch.tensor([y * width + z for y, z in self.around[gap]], device=places.device)
            sources = flat[:, :, (places + shift[:, None]).flatten()]
            out[:, :, places] = w @ sources.reshape(p, -1, len(places))
        full = out.reshape(p, coils, ny + 2 * pad, width)[:, :, pad : pad + ny, pad : pad + nz]
        back: Tensor = torch.fft.ifftshift(full, dim=PLANE).movedim(0, 1)
        return back

    def _at_plane(self, gap: Pair, here: slice, nx: int) -> Complex[Tensor, "p target source step"]:
        """Weights at places along the readout, where its neighbours have become a factor each."""
        w = self.values[gap]
        x = torch.arange(here.start, here.stop, device=w.device, dtype=torch.float64)
        tap = torch.arange(self.taps, device=w.device) - self.taps // 2
        turn = torch.exp(-2j * torch.pi * x[:, None] * tap / nx).to(w)
        at: Tensor = torch.einsum("pt,cstk->pcsk", turn, w)
        return at


def _weights(
    centre: Complex[Tensor, "coil rx ry rz"],
    taps: int,
    steps: tuple[Pair, ...],
    gaps: tuple[Pair, ...],
    regularisation: float,
) -> Complex[Tensor, "gap target source tap step"]:
    """Weights of the neighbours at `steps` from the corner of a cell that predict its gaps best."""
    coils, nx, ny, nz = centre.shape
    places = (*steps, *gaps)
    y0, z0 = (max(0, *(-s[a] for s in places)) for a in (0, 1))
    y1, z1 = (n - max(0, *(s[a] for s in places)) for a, n in ((0, ny), (1, nz)))
    unknowns = coils * taps * len(steps)
    rows = (nx - taps + 1) * (y1 - y0) * (z1 - z0)
    if y1 <= y0 or z1 <= z0 or nx < taps or rows * coils < unknowns:
        raise ValueError(
            f"a full centre of {nx}×{ny}×{nz} points is too small for {taps}×{len(steps)} neighbours of "
            f"{coils} coils: scan more reference lines (24), take a smaller kernel, or compress coils"
        )
    gram = torch.zeros(unknowns, unknowns, dtype=torch.complex128, device=centre.device)
    right = torch.zeros(len(gaps) * coils, unknowns, dtype=torch.complex128, device=centre.device)
    planes = max(1, CHUNK_BYTES // (16 * unknowns * (y1 - y0) * (z1 - z0)))
    first = taps // 2
    for x in range(first, nx - first, planes):
        end = min(x + planes, nx - first)
        near = [
            centre[:, x + t - first : end + t - first, y0 + a : y1 + a, z0 + b : z1 + b]
            for t in range(taps)
            for a, b in steps
        ]
        s = torch.stack(near, 1).reshape(unknowns, -1).to(gram)
        missing = [centre[:, x:end, y0 + a : y1 + a, z0 + b : z1 + b] for a, b in gaps]
        gram += s @ s.mH
        right += torch.stack(missing).reshape(len(gaps) * coils, -1).to(gram) @ s.mH
    power = float(gram.diagonal().real.mean()) or 1.0
    gram.diagonal().add_(power * max(regularisation, 1e-6) ** 2)
    w: Tensor = torch.linalg.solve(gram, right, left=False)
    return w.to(centre).reshape(len(gaps), coils, coils, taps, len(steps))
