"""Steps that graphics cards run fused: each is one graph, and the graph is the step."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from k2chi.ops.fuse import fused
from k2chi.ops.shrink import shrink_step


def test_every_fused_step_is_one_graph():
    """Shrinking, its second order, and both halves of one-step TGV, B0 straight and tilted."""
    script = Path(__file__).with_name("fused_graphs.py")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(script.parent), *sys.path])}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("four graphs\n")


def test_on_the_cpu_nothing_is_compiled():
    assert fused(shrink_step, torch.zeros(1)) is shrink_step
