"""A local field in the whole mask, from a joint inversion."""

from dataclasses import dataclass, replace

import torch

from k2chi.data import Field
from k2chi.joint.totalfield import TotalFieldTV


@dataclass(frozen=True)
class JointLocal:
    """Take away the field of the sources that a joint inversion puts outside the mask: no rim is lost.

    f_local = f − D(χ outside), with χ of `joint`. Idea of a total-field inversion: Liu Z et al. 2017, MRM
    78:303, doi:10.1002/mrm.26331; that its outside makes a background field: as in projection onto dipoles,
    Liu T et al. 2011, NMR Biomed 24:1129, doi:10.1002/nbm.1670, where the inside does not compete.
    Sources near the rim are told from the background by being smooth between edges, so what is local depends
    on that belief; noise stays in the field. Costs `joint`.
    """

    joint: TotalFieldTV = TotalFieldTV()
    """The inversion that explains inside and outside together."""

    def __call__(self, total: Field) -> Field:
        """The local field inside the mask as it came."""
        found = self.joint.solve(total)
        inside = total.mask & torch.isfinite(total.ppm)
        within = found.box.take(inside)
        background = found.box.put(found.field(~within), total.grid.shape)
        f = torch.where(inside, total.ppm - background, torch.zeros_like(total.ppm))
        f = torch.where(inside, f - f[inside].mean(), f)
        support = total.mask if total.support is None else total.support
        return replace(total, ppm=f, mask=inside, support=support, local=True)
