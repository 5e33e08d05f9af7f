"""Total variation by alternating directions whose strength in each voxel a small network sets."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from k2chi.data import Grid, Size, Vector, mean_edge
from k2chi.nets.background import background
from k2chi.nets.boxes import bounds, put
from k2chi.nets.given import Answer, Given
from k2chi.nets.regulariser import Regulariser
from k2chi.nets.running import Run, at_once
from k2chi.ops.box import faces, grown
from k2chi.ops.finite import differences
from k2chi.ops.fourier import SPACE
from k2chi.ops.pieces import Division, Pieces
from k2chi.ops.robust import trust
from k2chi.ops.shrink import TVSplit

LOOKS = 8
"""Volumes that the guide sees."""
GAP = 1.75
"""With the total field: so near the mask there is tissue [mean voxel edges], all next neighbours."""
DOUBT = 0.25
"""With pieces of voxels: power of their number by which the stated error grows, measured on digital heads."""
OUTLIER = 5.0
"""With the total field: weight falls for residuals beyond this many robust standard deviations."""


@dataclass(frozen=True)
class AdaptiveTVConfig:
    """Rounds of alternating directions, each followed by a look of the guide."""

    refine: ClassVar[int] = 0
    """Steps on the data that its maps want: its own iterations fit them."""
    most_voxels: ClassVar[int] = 30_000_000
    """Larger volumes go through its layers in slabs; some 0.4 kB each."""

    rounds: int = 4
    """Looks of the guide."""
    inner: int = 6
    """Iterations of alternating directions before each look."""
    widths: tuple[int, ...] = (8, 16, 24)
    """Channels of the guide at full, half and quarter resolution."""
    depth: int = 1
    """Residual blocks at each lower resolution."""
    shared: bool = True
    """One guide for all rounds, told which it is; else one for each."""
    total: bool = False
    """True for networks that take the total field and explain the background by sources outside."""
    start: int = 30
    """Conjugate-gradient steps of the background's first guess, with `total`."""
    relax: float = 1.0
    """Over-relaxation of all iterations but a round's first; at least 1, below 2."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.inner, self.start, *self.widths) < 1:
            raise ValueError("adaptive total variation needs at least one round, one iteration and one width")
        if not 1 <= self.relax < 2:
            raise ValueError(f"over-relaxation {self.relax} is out of range: choose 1 or more, below 2")

    def build(self) -> "AdaptiveTV":
        """The network with fresh weights: at first it is plain total variation."""
        return AdaptiveTV(self)


class AdaptiveTV(nn.Module):
    """min ½‖w(Dχ − f)‖² + Σ α(r)|∇χ(r)|, χ zero outside the support; the guide sets α and adds to χ.

    The field is divided by its own weighted size and edges are in units of the voxel's mean edge, so that
    the map of c times the field is c times the map, and a scene twice as large, with voxels twice as large,
    has the same map.
    """

    axial = False

    def __init__(self, config: AdaptiveTVConfig) -> None:
        super().__init__()
        self.config = config
        count = 1 if config.shared else config.rounds
        self.guides = nn.ModuleList(
            Regulariser(LOOKS, 3, config.widths, config.depth, told=9 + config.rounds) for _ in range(count)
        )
        tv, edge = (5e-3, 2.0) if config.total else (3e-3, 1.5)
        self.log_tv = nn.Parameter(torch.full((config.rounds,), log(tv)))
        self.log_edge = nn.Parameter(torch.full((config.rounds,), log(edge)))
        self.log_data = nn.Parameter(torch.full((config.rounds,), log(0.1)))
        # sources outside must move freely: there the weight is one on the step only
        self.log_support = nn.Parameter(torch.full((config.rounds,), log(1e-4 if config.total else 0.01)))
        # misfit after the first round, over the field's size, above which strength rises, and by which power;
        # what is left of a background is no noise
        self.log_calm = nn.Parameter(torch.tensor(log(0.13)))
        self.rise = nn.Parameter(torch.tensor(0.0 if config.total else 3.0))

    def invert(self, given: Given, run: Run = at_once) -> Answer:
        """χ inside the support; its mean is arbitrary."""
        s = given.support
        tissue = grown(s, GAP * mean_edge(given.voxel_mm), given.voxel_mm) if self.config.total else s
        beyond = background(given, 1 - tissue, self.config.start) if self.config.total else None
        left = given
        if beyond is not None:
            left = evenly_weighted(replace(given, field=given.field - given.d(beyond), parts=(1, 1, 1)))
        scale = left.scale()
        room = torch.ones_like(s) if self.config.total else s
        state = Splitting(left.over(scale), tissue, room, self.config.relax)
        s = state.support
        box = bounds(s)
        strength = torch.zeros_like(s)
        spread = firm = strength
        for k in range(self.config.rounds):
            state.begin(
                self.log_tv[k].exp(), self.log_data[k].exp(), self.log_support[k].exp(),
                (self.log_edge[k] + strength).exp(),
            )  # fmt: skip
            if k and self.config.total:
                state.doubt()
            for _ in range(self.config.inner):
                state.step()
            if k == 0:  # what the first round cannot explain is noise: the more of it, the stronger
                firm = self.rise * torch.relu(state.misfit().log() - self.log_calm)
            looks = state.looks()[(..., *box)]
            told = torch.cat(
                [given.geometry, nn.functional.one_hot(torch.tensor(k), self.config.rounds).to(looks)]
            )
            said = run(self.guides[0 if self.config.shared else k], looks, told)
            strength, added, spread = (put(said[:, i], box, s) for i in range(3))
            strength = strength.clamp(-6, 6) + firm
            state.chi = state.chi + s * added
        if beyond is not None:
            beyond = beyond + (1 - s) * state.chi * scale
        chi, spread = (state.pieces.averaged(s * x) for x in (state.chi, spread.clamp(-12, 6).exp()))
        # pieces fit the field closer than whole voxels, of which the guide learned how far off they are
        return Answer(chi * scale, spread * scale * state.pieces.count**DOUBT, beyond)


def evenly_weighted(given: Given) -> Given:
    """Weights over their root mean square in the mask: strength must not follow the brightest voxel."""
    w2 = given.weight.square()
    known = (w2 > 0).sum(SPACE, keepdim=True).clamp_min(1)
    size = (w2.sum(SPACE, keepdim=True) / known).clamp_min(1e-24).sqrt()
    return replace(given, weight=given.weight / size)


class Splitting:
    """Where the alternating directions stand: χ, its field, and the scaled duals of the three splits."""

    def __init__(
        self, given: Given, tissue: Float[Tensor, "n x y z"], room: Float[Tensor, "n x y z"], relax: float
    ) -> None:
        """Edges are counted within `tissue`; there are sources only in `room`."""
        self.f, self.w2, self.weight = given.field, given.weight.square(), given.weight
        size: Size = (self.f.shape[1], self.f.shape[2], self.f.shape[3])
        whole = Grid.of(size, given.voxel_mm, given.b0_dir)
        self.pieces = Pieces(whole, given.parts, self.f.device, given.kernel)
        mean = mean_edge(given.voxel_mm)
        v = self.pieces.grid.voxel_mm
        self.voxel: Vector = (v[0] / mean, v[1] / mean, v[2] / mean)
        self.grid = Grid.of(self.pieces.grid.shape, self.voxel)
        self.laplacian = self.pieces.laplacian(self.voxel).to(self.f)
        self.support, self.room, tissue = (self.pieces.repeated(x) for x in (given.support, room, tissue))
        self.count = given.support.sum(SPACE, keepdim=True).clamp_min(1)
        self.inner = faces(tissue)
        self.chi, self.outside = torch.zeros_like(self.support), torch.zeros_like(self.support)
        self.field, self.dual = torch.zeros_like(self.f), torch.zeros_like(self.f)
        self.copies: tuple[Tensor, Tensor] | None = None
        """Those of χ and of its field; none before a plain step, as a round's first is."""
        zero = torch.zeros_like(self.support[0])
        learning = torch.is_grad_enabled()
        self.edges = [TVSplit(self.grid, zero, relax, learning) for _ in self.f]
        self.mu: tuple[Tensor, ...] = ()
        self.relax = relax

    def begin(self, tv: Tensor, data: Tensor, support: Tensor, edge: Float[Tensor, "n x y z"]) -> None:
        """Take new weights of the splits and new thresholds; duals are scaled, so they follow."""
        if self.mu:
            self.dual = self.dual * (self.mu[1] / data)
            self.outside = self.outside * (self.mu[2] / support)
        threshold = self.inner * edge
        for i, split in enumerate(self.edges):
            split.again(threshold[i], self.mu[0] / tv if self.mu else 1.0)
        self.mu, self.copies = (tv, data, support), None
        self.divide = Division(self.pieces, support + tv * self.laplacian, data)

    def step(self) -> None:
        """One iteration."""
        tv, data, support = self.mu
        rhs = tv * torch.stack([edge.step(x) for edge, x in zip(self.edges, self.chi, strict=True)])
        chi, field = self.chi, self.field
        if self.copies is not None:
            chi, field = (
                self.relax * x + (1 - self.relax) * z for x, z in zip((chi, field), self.copies, strict=True)
            )
        self.outside = (self.outside + chi) * (1 - self.room)
        rhs = rhs + support * (chi * self.room - self.outside)
        v = field + self.dual
        z = v + self.w2 / (self.w2 + data) * (self.f - v)
        self.dual = v - z
        self.copies = (chi * self.room, z) if self.relax != 1 else None
        self.chi, self.field = self.divide(rhs, z - self.dual)

    def doubt(self) -> None:
        """Voxels that fit badly lose weight: jumps in the background must not pull at the map."""
        with torch.no_grad():
            left = self.weight * (self.f - self.field)
            trusts = [trust(x, m > 0, OUTLIER) for x, m in zip(left, self.weight, strict=True)]
            self.w2 = self.weight.square() * torch.stack(trusts)

    def misfit(self) -> Float[Tensor, "n 1 1 1"]:
        """Weighted root mean square of the field that is left unexplained."""
        left = self.weight * (self.f - self.field)
        out: Tensor = (left.square().sum(SPACE, keepdim=True) / self.count).clamp_min(1e-8).sqrt()
        return out

    def looks(self) -> Float[Tensor, "n 8 x y z"]:
        """What the guide sees."""
        left, noise = self.weight * (self.f - self.field), self.misfit()
        wanted = self.pieces.pulled(self.weight * left)
        known, weight = (self.pieces.repeated(x) for x in ((left / noise).asinh(), self.weight))
        slope = torch.stack([differences(x, self.voxel).square().sum(0) for x in self.chi]) * self.inner
        tight = torch.stack([e.s.square().sum(0) / e.threshold.square().clamp_min(1e-12) for e in self.edges])
        s = self.support
        return torch.stack(
            [
                s * (self.chi / 2).asinh(), s * (slope + 1e-2).log() / 4, known,
                s * (2 * wanted / noise).asinh(), s, weight, s * tight.clamp_max(1.0),
                s * noise.log() / 4,
            ],
            1,
        )  # fmt: skip
