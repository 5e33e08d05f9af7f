"""Inversion by a trained network."""

import warnings
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field, Grid, Size
from k2chi.invert.axial import axial_invert
from k2chi.invert.problem import Problem, problem
from k2chi.nets.given import Answer, Given, Network
from k2chi.nets.running import ByOpenVINO, InSlabs, Run, at_once
from k2chi.nets.weights import Trained, trained
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.fourier import SPACE
from k2chi.ops.pieces import refuse_parts
from k2chi.progress import track

DEFAULT = "adaptive-tv"


@dataclass(frozen=True)
class Learned:
    """Let a trained network invert the field, for the scan's own voxel size and B0 direction.

    The default, `adaptive-tv`, unrolls the alternating directions of total variation with the true dipole
    operator, as in `FANSI`, and lets a small network set their strength in each voxel; unrolling as in Lai et
    al. 2020, MICCAI 12262:125, doi:10.1007/978-3-030-59713-9_13. It was taught on simulated shapes and
    digital heads, see its model card.
    Field and map share a scale, so c times the field gives c times the map. Networks that know cubic voxels
    and B0 along an axis only (SI-QSM, QSMnet) get the field resampled, which blurs. A network may invent
    structure that no data support: compare with a classical method. `sd_ppm` of the map says how far off it
    believes to be, relative to the mask's mean: on held-back phantoms ±1.645 of it held some 90 % of errors
    (the card has the number), with the default refinement, and only where the field's noise is known.
    """

    weights: str = DEFAULT
    """Name of weights in the package, or a .safetensors file that `k2chi train` made."""
    refine: int | None = None
    """Steps that fit the map to this scan's own field; more: closer to the data, and to their noise.
    Left out: as many as suit the network."""
    half: bool = False
    """Compute the network's layers in bfloat16; the dipole operator stays in single precision."""
    openvino: bool = False
    """Run the layers by OpenVINO at full accuracy, on a CPU that has it installed."""
    most_voxels: int | None = None
    """Larger volumes go through the layers in overlapping slabs, to save memory. Left out: as many as suit
    the network."""
    parts: Size = (1, 1, 1)
    """Pieces of a voxel along each axis on which χ may differ, one of them 1, for networks that unroll total
    variation; others take no notice. For fields that are means over long or tilted voxels, as `SubvoxelTV`;
    from phase, background and all, they gained nothing. Time and memory grow with the pieces."""

    def __post_init__(self) -> None:
        least = 1_000_000
        if (self.refine or 0) < 0 or (least if self.most_voxels is None else self.most_voxels) < least:
            raise ValueError("Learned needs refine of at least 0 and most_voxels of at least a million")
        refuse_parts(self.parts, "Learned")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`. The map is zero outside the mask and has no reference yet."""
        known = trained(self.weights, local.ppm.device)
        if known.card.takes != "local":
            raise ValueError(f"the network {known.card.name} takes the total field: use LearnedTotal")
        p = problem(local, inside=True)
        return self.answered(p, known)

    def answered(self, p: Problem, known: Trained) -> Chi:
        """χ and its spread for a field in its box."""
        if words := known.card.warning(p.grid.voxel_mm):
            warnings.warn(words, stacklevel=3)
        order = canonical(p.grid)
        given, net = arranged(p, order), cast(Network, known.network)
        i, j, k = order
        given = replace(given, parts=(self.parts[i], self.parts[j], self.parts[k]))
        most = self.most_voxels or known.card.network.most_voxels
        run: Run = InSlabs(most, ByOpenVINO() if self.openvino else at_once)
        kind = p.ppm.device.type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=self.half):
            answer = axial_invert(net, given, run) if net.axial else net.invert(given, run)
        steps = known.card.network.refine if self.refine is None else self.refine
        chi = refined(answer, given, steps)
        back = sorted(range(3), key=order.__getitem__)
        chi = chi[0].permute(back).contiguous()
        out = p.answer(chi, (), (p.misfit(p.d(chi)),))
        if answer.spread is None:
            return out
        spread = p.box.put(answer.spread[0].permute(back), out.grid.shape)
        return replace(out, sd_ppm=known.card.sd(spread, p.field.noise_ppm) * out.mask)


def refined(answer: Answer, given: Given, steps: int) -> Float[Tensor, "n x y z"]:
    """χ after descent of ½‖w(Dχ − f)‖² from the network's map, within the support.

    Networks leave the mean of χ open, but its field at the rim is one that short steps cannot undo, so
    the mean that the data want comes first. Where the network explained a background, its sources outside
    move along, or χ would take their field.
    """
    d, w2, s = given.d, given.weight.square(), given.support
    chi, room = answer.chi * s, s
    if answer.beyond is not None:
        chi, room = chi + answer.beyond, s + (1 - s) * (given.weight == 0)
    if steps:
        even = d(s)
        off = (w2 * even * (given.field - d(chi))).sum(SPACE, keepdim=True)
        chi = chi + s * off / (w2 * even.square()).sum(SPACE, keepdim=True).clamp_min(1e-12)
    for _ in track(steps, "refinement"):
        chi = chi - 2.0 * room * d.H(w2 * (d(chi) - given.field))
    return chi * s


def canonical(grid: Grid) -> tuple[int, int, int]:
    """Order of the axes in which networks see a volume: B0's share rising, shorter edges first.

    So a volume and its turned copy look the same to the network, unless two axes are alike.
    """
    b, v = grid.b0_dir, grid.voxel_mm
    i, j, k = sorted(range(3), key=lambda a: (round(abs(b[a]), 5), round(v[a], 5)))
    return i, j, k


def arranged(p: Problem, order: tuple[int, int, int]) -> Given:
    """A problem as a batch of one, its axes in `order`, the largest weight one."""
    i, j, k = order
    v, b, n = p.grid.voxel_mm, p.grid.b0_dir, p.grid.shape
    shape: Size = (n[i], n[j], n[k])
    grid = Grid.of(shape, (v[i], v[j], v[k]), (b[i], b[j], b[k]))
    straight = order == (0, 1, 2)
    kernel = p.kernel if straight else dipole_kernel(grid, shape, p.kind).to(p.ppm.device)
    weight = p.weight / p.weight.max().clamp_min(1e-12)
    f, w, s = (x.permute(order).contiguous()[None] for x in (p.ppm, weight, p.support.to(p.ppm)))
    return Given(f, w, s, kernel, grid.voxel_mm, grid.b0_dir)
