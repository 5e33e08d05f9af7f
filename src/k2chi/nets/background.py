"""What networks for total fields start from: sources outside the mask that explain most of the field."""

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.nets.given import Given
from k2chi.solve.cg import cg


def background(given: Given, free: Float[Tensor, "n x y z"], steps: int) -> Float[Tensor, "n x y z"]:
    """Sources where `free` is one; not learned. Projection onto dipoles, doi:10.1002/nbm.1670."""
    with torch.no_grad():
        d, w2 = given.d, given.weight.square()
        return cg(
            lambda u: free * d.H(w2 * d(u)),
            free * d.H(w2 * given.field),
            iterations=steps,
            tolerance=1e-4,
            what="background",
        )
