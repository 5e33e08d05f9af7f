"""Run by test_ops_fuse.py in a process without checked shapes, whose checks no graph can hold.

Each step is traced as one graph and run without code generation; what no graph can hold is refused.
"""

import torch
from test_joint_tgv import domain

from k2chi.joint.tgvsteps import State, Steps, dual_step_plain, primal_step_plain
from k2chi.ops.bend import bend_step
from k2chi.ops.shrink import shrink_step

VOXEL = (1.1, 0.9, 1.6)


def graph(step):
    return torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")


def same(step, *given):
    for got, want in zip(graph(step)(*given), step(*given), strict=True):
        torch.testing.assert_close(got, want)


def tgv(b0):
    """The dual and the primal step write into what they are given."""
    d, t = domain(b0), Steps(0.02, 0.2, 0.2, 0.05, 0.05, 0.1, alpha1=0.8, alpha0=0.3)
    first = torch.randn(5, *d.tissue.shape) * d.tissue
    states = [State(first.clone(), first.clone(), torch.zeros(10, *d.tissue.shape)) for _ in range(2)]
    pairs = ((dual_step_plain, primal_step_plain), (graph(dual_step_plain), graph(primal_step_plain)))
    for s, (dual, primal) in zip(states, pairs, strict=True):
        for _ in range(3):
            dual(s, d, t, s.y[0])
            primal(s, d, t)
    for name in ("u", "bar", "y"):
        torch.testing.assert_close(getattr(states[1], name), getattr(states[0], name))


if __name__ == "__main__":
    torch.manual_seed(0)
    size = (5, 6, 7)
    first, second = torch.rand(size), torch.rand(size)
    same(shrink_step, torch.randn(size), torch.randn(3, *size), first, VOXEL)
    duals = torch.randn(3, *size), torch.randn(3, 3, *size)
    same(bend_step, torch.randn(size), torch.randn(3, *size), *duals, (first, second), (0.7, 1.3), VOXEL)
    tgv((0.0, 0.0, 1.0))
    tgv((0.3, -0.4, 0.85))
    print("four graphs")
