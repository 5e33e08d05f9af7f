"""In what order a scanner reads the lines of k-space, and when."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from k2chi.phantom.protocols import Protocol


@dataclass(frozen=True, eq=False)
class Plan:
    """The readouts of one echo and average, in the order in which they are taken."""

    ky: Int64[Tensor, "line"]
    kz: Int64[Tensor, "line"]
    shot: Int64[Tensor, "line"]
    """Number of the pulse."""
    delay_s: Float64[Tensor, "line"]
    """Time of the readout after the pulse [s]."""
    reverse: Bool[Tensor, "line"]
    """True where the readout gradient is negative."""

    def __len__(self) -> int:
        return len(self.ky)


def plan(protocol: Protocol, mask: Bool[Tensor, "ky kz"], echo: int = 0) -> Plan:
    """The order of the lines in `mask`: one for each pulse, or a train of them."""
    if protocol.train == 1:
        at = mask.nonzero()
        backwards = protocol.bipolar and echo % 2 == 1
        return Plan(
            at[:, 0],
            at[:, 1],
            torch.arange(len(at)),
            torch.full((len(at),), protocol.te_s[echo], dtype=torch.float64),
            torch.full((len(at),), backwards),
        )
    return _segmented(protocol, mask)


def _segmented(protocol: Protocol, mask: Bool[Tensor, "ky kz"]) -> Plan:
    """Shot s of a partition reads its lines s, s + n, s + 2n, …, so that a train crosses all of k-space.

    With the echo-time shift, shot s waits s/n of the spacing longer: the time of a readout is then linear in
    its place. The centre of k-space is read at the echo time.
    """
    segments = ceil(int(mask.sum(0).max()) / protocol.train)
    centre, rows, shot = mask.shape[0] // 2, [], 0
    for kz in mask.any(0).nonzero()[:, 0].tolist():
        ky = mask[:, kz].nonzero()[:, 0].numpy()
        index = np.arange(len(ky))
        middle = float(np.interp(centre, ky, index))
        if not protocol.shift:
            index, middle = index // segments * segments, middle // segments * segments
        delay = np.round(protocol.te_s[0] + (index - middle) / segments * protocol.spacing_s, 9)
        turn, segment = np.divmod(np.arange(len(ky)), segments)
        order = np.lexsort((turn, segment))
        rows.append(np.stack([ky, np.full(len(ky), kz), shot + segment, delay, turn % 2], 1)[order])
        shot += segments
    table = torch.from_numpy(np.concatenate(rows))
    return Plan(table[:, 0].long(), table[:, 1].long(), table[:, 2].long(), table[:, 3], table[:, 4] > 0)


def navigators(protocol: Protocol) -> Plan:
    """Three readouts of the middle of k-space right before the first train: forward, backward, forward."""
    centre = [n // 2 for n in protocol.matrix[1:]]
    first = protocol.te_s[0] - (protocol.train // 2) * protocol.spacing_s
    return Plan(
        torch.full((3,), centre[0]),
        torch.full((3,), centre[1]),
        torch.zeros(3, dtype=torch.int64),
        first - protocol.spacing_s * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64),
        torch.tensor([False, True, False]),
    )
