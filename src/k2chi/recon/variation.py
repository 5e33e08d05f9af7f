"""Images from few samples of k-space, by how few edges images have."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from k2chi.data import KSpace, Vector
from k2chi.ops.variation import TVProx
from k2chi.recon.sense import least_squares, per_echo
from k2chi.solve import descent


@dataclass(frozen=True)
class TVSENSE:
    """Find the image that fits what was measured and has few and low edges.

    min_x ½‖E x − y‖² + λ Σ|∇x|, E = M F S. |∇x| is the length of the complex differences along all axes at a
    voxel, in units of its shortest edge, so that edges in any direction and in magnitude or phase cost
    alike. From zero; each step on the data is followed by one on the dual of the edges.

    Block et al. 2007, Magn Reson Med 57:1086, doi:10.1002/mrm.21236; Loris & Verhoeven 2011, Inverse Probl
    27:125007, doi:10.1088/0266-5611/27/12/125007.
    Made for masks without a pattern (Poisson-disk), as `SparseSENSE`. Steps of the image stay sharp, slopes
    turn into small steps, and fine weak structure goes with the noise; steep phase has differences of its
    own and is levelled where λ is large. About twice the time of `CGSENSE`.
    """

    regularisation: float = 1.5e-3
    """λ over the largest |Eᴴy|; larger is smoother."""
    iterations: int = 60
    """Upper limit of steps."""
    tolerance: float = 1e-3
    """Stop once a step changes the image by this share; 0 runs all iterations."""

    def __post_init__(self) -> None:
        if self.regularisation < 0 or self.iterations < 1 or self.tolerance < 0:
            raise ValueError(
                f"TVSENSE regularisation {self.regularisation}, iterations {self.iterations}, tolerance "
                f"{self.tolerance}: choose 0 or more, 1 or more, 0 or more"
            )

    def __call__(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "echo x y z"]:
        """The image of each echo; zero where no coil sees."""
        voxel = kspace.grid.voxel_mm
        x, y, z = (v / min(voxel) for v in voxel)
        return torch.stack([self._image(k, seen, maps, (x, y, z)) for k, seen in per_echo(kspace, maps)])

    def _image(
        self,
        y: Complex[Tensor, "coil x y z"],
        seen: Bool[Tensor, "#x #y #z"],
        maps: Complex[Tensor, "coil x y z"],
        edges: Vector,
    ) -> Complex[Tensor, "x y z"]:
        gram, b, step = least_squares(y, seen, maps)
        step *= 1.6  # below 2 it converges; where all was measured 1 would be best
        threshold = self.regularisation * step * float(b.abs().max())
        x, _ = descent(
            lambda x: gram(x).sub_(b),
            torch.zeros_like(b),
            step,
            self.iterations,
            self.tolerance,
            TVProx(b, threshold, edges),
            what="TV SENSE",
        )
        return x
