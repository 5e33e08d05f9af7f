"""The box around the supports of a batch: layers need not see the empty rest."""

from jaxtyping import Float
from torch import Tensor, nn

Box = tuple[slice, slice, slice]


def bounds(support: Float[Tensor, "n x y z"], margin: int = 2) -> Box:
    """The box that holds every support of the batch, a little wider."""
    out = []
    for axis in (1, 2, 3):
        hit = support.movedim(axis, 0).flatten(1).any(1).nonzero()
        low, high = (int(hit[0]), int(hit[-1]) + 1) if hit.numel() else (0, 1)
        out.append(slice(max(low - margin, 0), min(high + margin, support.shape[axis])))
    return out[0], out[1], out[2]


def put(x: Float[Tensor, "n u v w"], box: Box, like: Float[Tensor, "n x y z"]) -> Float[Tensor, "n x y z"]:
    """The box laid back, zeros elsewhere."""
    pads = [
        p for s, n in zip(reversed(box), reversed(like.shape), strict=False) for p in (s.start, n - s.stop)
    ]
    return nn.functional.pad(x, pads)
