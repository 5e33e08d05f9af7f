"""What networks for total fields start from: sources outside the mask that explain most of the field."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.nets.given import Given
from k2chi.solve.cg import cg


def background(given: Given, free: Float[Tensor, "n x y z"], steps: int) -> Float[Tensor, "n x y z"]:
    """Sources where `free` is one; not learned. Projection onto dipoles, doi:10.1002/nbm.1670.

    In double precision: these steps make single precision's rounding up to a hundredth of the map.
    """
    with torch.no_grad():
        exact = replace(
            given, field=given.field.double(), weight=given.weight.double(), kernel=given.kernel.double()
        )
        d, w2, room = exact.d, exact.weight.square(), free.double()
        found = cg(
            lambda u: room * d.H(w2 * d(u)),
            room * d.H(w2 * exact.field),
            iterations=steps,
            tolerance=1e-4,
            what="background",
        )
        return found.to(given.field)
