"""What training makes small: each from an answer and its batch."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.learn.anatomy import demeaned
from k2chi.learn.batch import Batch
from k2chi.nets import Answer
from k2chi.ops.fourier import SPACE

Loss = Literal["relative", "thesis", "released", "squared", "qsmnet"]


def _mean(x: Float[Tensor, "n x y z"], batch: Batch) -> Float[Tensor, " n"]:
    """Mean over each support."""
    s = batch.support.to(x)
    out: Tensor = (x * s).sum(SPACE) / s.sum(SPACE).clamp_min(1)
    return out


def _steps(x: Float[Tensor, "n x y z"]) -> Float[Tensor, "3 n x y z"]:
    """Forward differences from voxel to voxel; zero at the far end."""
    zero = [torch.zeros_like(x.narrow(a, 0, 1)) for a in SPACE]
    return torch.stack([torch.cat([x.diff(dim=a), z], a) for a, z in zip(SPACE, zero, strict=True)])


def relative(answer: Answer, batch: Batch) -> Tensor:
    """Errors over the size of each cube's χ, whose mean is free: rms, absolute, of gradients; and spread.

    The spread is taught to be the error's size by the likelihood of a normal distribution; the map itself
    does not feel that term.
    """
    error = demeaned(answer.chi - batch.chi, batch.support)
    size = _mean(batch.chi.square(), batch).sqrt().clamp_min(1e-4)
    rms = (_mean(error.square(), batch) + 1e-12).sqrt() / size
    absolute = _mean(error.abs(), batch) / size
    edges = _mean(_steps(error).abs().sum(0), batch) / size
    out = rms + absolute + 0.2 * edges
    if answer.spread is not None:
        r = answer.spread.clamp_min(1e-7) / size[:, None, None, None]
        e = (error / size[:, None, None, None]).detach()
        out = out + 0.1 * _mean(r.log() + 0.5 * (e / r).square().clamp_max(100), batch)
    total: Tensor = out.mean()
    return total


def thesis(answer: Answer, batch: Batch) -> Tensor:
    """As the SI-QSM thesis prints it: L2 + 1e-4 L1 + TV, each a mean over voxels [ppm]."""
    error = answer.chi - batch.chi
    return error.square().mean() + 1e-4 * error.abs().mean() + _steps(answer.chi).abs().sum(0).mean()


def released(answer: Answer, batch: Batch) -> Tensor:
    """As the released code of SI-QSM has it: mean L2 + 0.1 mean L1 + 2e-9 TV summed over the batch."""
    error = answer.chi - batch.chi
    return error.square().mean() + 0.1 * error.abs().mean() + 2e-9 * _steps(answer.chi).abs().sum()


def squared(answer: Answer, batch: Batch) -> Tensor:
    """Mean squared error in the support [ppm²]."""
    return _mean((answer.chi - batch.chi).square(), batch).mean()


def qsmnet(answer: Answer, batch: Batch) -> Tensor:
    """L1 + 0.5 model loss + 0.1 gradient loss, as QSMnet: the model loss compares the fields of both maps."""
    s = batch.support.to(answer.chi)
    d = batch.given().d
    model = (d(answer.chi * s) - d(batch.chi)).abs()
    edges = (_steps(answer.chi).abs() - _steps(batch.chi).abs()).abs().sum(0)
    voxelwise = (answer.chi - batch.chi).abs()
    return (_mean(voxelwise, batch) + 0.5 * _mean(model, batch) + 0.1 * _mean(edges, batch)).mean()


LOSSES: dict[Loss, Callable[[Answer, Batch], Tensor]] = {
    "relative": relative,
    "thesis": thesis,
    "released": released,
    "squared": squared,
    "qsmnet": qsmnet,
}
