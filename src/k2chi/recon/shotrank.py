"""The phase of each shot without navigators: shots that fit leave few large eigenvalues among lines."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Int64
from scipy.sparse import csr_array
from torch import Tensor

from k2chi.data import Lines
from k2chi.progress import track
from k2chi.recon.readouts import Phase, Readouts, group

SIZE = 3
"""Neighbouring lines that are looked at together, along each phase encoding."""
FLOOR = 1e-2
"""Added to the eigenvalues, over their mean: less is noise."""
NEAR, PLACES = 6, 16
"""Voxels along the readout that are pooled, and how many such places are looked at."""
PULL = 0.01
"""Weight by which a shot keeps to the mean of all, over the mean weight of its own lines: phases that grow
steadily from partition to partition only move the image, and nothing else holds them."""
SWEEPS = 30


@dataclass(frozen=True)
class FittedShots:
    """One phase for each shot at which neighbouring lines of all coils depend on each other most.

    Minimises Σ log det C over phases u of shots, C the covariance of 3×3 neighbouring lines of all coils at a
    place along the readout. log det C is bounded by tr(C₀⁻¹C), which is a quadratic form of u
    and is descended shot by shot; then C₀ is made anew.
    After Mani et al. 2017, MRM 78:494, doi:10.1002/mrm.26382 (rank of shots; there each shot as an image).
    Needs no navigators, but a 3D scan that was read in full, or every second line of it: where more was left
    out it may do harm. Phases that grow steadily from partition to partition are left in: they only move the
    image. Where C falls by less than `sure`, nothing is corrected. Costs a pass over C for each place and
    iteration, so minutes for a large scan.
    """

    points: int = 32
    """Lines about the centre of the first phase encoding that are looked at; all of the second."""
    iterations: int = 3
    """How often the covariance is made anew."""
    sure: float = 0.003
    """How far the mean log of the eigenvalues has to fall, or nothing is corrected."""

    def __post_init__(self) -> None:
        if self.points < 8 or self.iterations < 1 or self.sure < 0:
            raise ValueError(
                f"FittedShots points {self.points}, iterations {self.iterations}, sure {self.sure}: choose "
                "8, 1, 0 or more"
            )

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None where nothing is found, or there is one shot only."""
        if readouts.raw.encoding.slices:
            warnings.warn(
                "FittedShots is for 3D scans only: a slice has too few lines; take NavigatedShots",
                stacklevel=2,
            )
            return None
        seen = readouts.central(self.points, partitions=True)
        lines = replace(seen, **{k: v.cpu() for k, v in vars(seen).items() if v is not None})
        found: dict[tuple[int, ...], float] = {}
        for average in torch.unique(lines.average):
            found |= self._found(lines[torch.nonzero(lines.average == average)[:, 0]])
        if not found:
            return None
        te = readouts.raw.scan.te_s[readouts.echo]
        middle = _middles(lines)

        def phase(block: Lines) -> tuple[Tensor, Tensor]:
            offset = torch.zeros(len(block.ky), dtype=torch.float64)
            for key, index in group(block, "shot").items():
                offset[index] = found.get(key, 0.0)
                if block.time_s is not None and key in middle:  # as a shift of the field grows
                    offset[index] *= 1 + (block.time_s[index].double() - middle[key]) / te
            return offset, torch.zeros_like(offset)

        return phase

    def _found(self, lines: Lines) -> dict[tuple[int, ...], float]:
        """Phase of each shot of one average; their mean is zero."""
        shots = group(lines, "shot")
        windows = _windows(lines)
        if len(shots) < 2:
            return {}
        if not len(windows):
            warnings.warn(
                f"no {SIZE}×{SIZE} neighbouring lines at equal distances: phases of shots are not found; "
                "take NavigatedShots",
                stacklevel=3,
            )
            return {}
        shot = torch.empty(len(lines.ky), dtype=torch.int64)
        for n, index in enumerate(shots.values()):
            shot[index] = n
        u = torch.ones(len(shots), dtype=torch.complex128)
        costs = []
        for _ in track(self.iterations + 1, "phases of shots"):
            form, cost = _form(lines.data, windows, shot, u)
            costs.append(cost)
            u = _descended(form, u)
        if costs[0] - min(costs) <= self.sure:
            return {}
        rad = torch.angle(u * u.mean().conj())
        return dict(zip(shots, rad.tolist(), strict=True))


def _middles(lines: Lines) -> dict[tuple[int, ...], float]:
    """When each shot passes the centre of k-space, nearly."""
    if lines.time_s is None:
        return {}
    return {key: float(lines.time_s[index].double().mean()) for key, index in group(lines, "shot").items()}


def _windows(lines: Lines) -> Int64[Tensor, "window block"]:
    """Indices of the lines of every full block of neighbours."""
    y, z = _counted(lines.ky), _counted(lines.kz)
    at = torch.full((int(y.max()) + 1, int(z.max()) + 1), -1)
    at[y, z] = torch.arange(len(y))
    if min(at.shape) < SIZE:
        return at.new_empty(0, SIZE**2)
    blocks = at.unfold(0, SIZE, 1).unfold(1, SIZE, 1).reshape(-1, SIZE**2)
    return blocks[(blocks >= 0).all(1)]


def _counted(k: Int64[Tensor, "line"]) -> Int64[Tensor, "line"]:
    """From the first line on, in steps of the distance at which lines were read."""
    values = torch.unique(k)
    step = int(np.gcd.reduce(values.diff().numpy())) if len(values) > 1 else 1
    counted: Tensor = (k - values[0]) // step
    return counted


def _form(
    data: Complex[Tensor, "line coil x"],
    windows: Int64[Tensor, "window block"],
    shot: Int64[Tensor, "line"],
    u: Complex[Tensor, "shot"],
) -> tuple[csr_array, float]:
    """Q of uᵀQū = Σ tr(C₀⁻¹C), where u turns each shot back, and the mean log of the eigenvalues of C₀."""
    energy = data.abs().square().sum((0, 1))
    parts = [slice(n, n + NEAR) for n in range(0, max(data.shape[2] - NEAR, 0) + 1, NEAR)]
    top = max(float(energy[x].sum()) for x in parts)
    parts = [x for x in parts if float(energy[x].sum()) > 0.01 * top] if top > 0 else []
    parts = parts[:: -(-len(parts) // PLACES)] if parts else []
    between = torch.zeros(len(windows), windows.shape[1], windows.shape[1], dtype=torch.complex64)
    total = 0.0
    turn = u.conj()[shot].to(torch.complex64)[:, None, None]
    for x in parts:
        rows = data[:, :, x][windows].permute(0, 3, 1, 2)  # window x line coil
        turned = (data[:, :, x] * turn)[windows].permute(0, 3, 1, 2)
        flat = turned.flatten(2).flatten(0, 1)
        c = (flat.mT @ flat.conj()).to(torch.complex128)
        c = c + FLOOR * c.diagonal().real.mean() * torch.eye(len(c))
        total += 2 * float(torch.linalg.cholesky(c).diagonal().real.log().mean())
        inverse = torch.linalg.inv(c).to(torch.complex64)
        lines, coils = rows.shape[2:]
        m = inverse.reshape(lines, coils, lines, coils)
        for j in range(lines):
            mv = torch.tensordot(rows[:, :, j], m[:, :, j], dims=([2], [2]))  # window x line coil
            between[:, :, j] += (rows.conj() * mv).sum((1, 3))
    first, second = (
        shot[windows][at].expand_as(between).flatten().numpy() for at in (np.s_[:, :, None], np.s_[:, None])
    )
    values = between.flatten().numpy().astype(complex)
    q = csr_array((values, (first, second)), shape=(len(u), len(u)))
    return csr_array((q + q.conj().T) / 2), total / max(len(parts), 1)


def _descended(form: csr_array, u: Complex[Tensor, "shot"]) -> Complex[Tensor, "shot"]:
    """Phases that lower the form, each shot at its best while the others of its share stay."""
    diagonal = form.diagonal().real
    rest = csr_array(form.conj() - csr_array((diagonal, (range(len(u)), range(len(u)))), shape=form.shape))
    pull = PULL * float(diagonal.mean())
    out = u.numpy().copy()
    order = np.random.default_rng(0)
    for _ in range(SWEEPS):
        for part in np.array_split(order.permutation(len(out)), min(8, len(out))):
            out[part] = np.exp(1j * np.angle(pull * out.mean() - rest[part] @ out))
    return torch.from_numpy(out)
