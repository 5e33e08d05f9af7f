"""Make docs/images/demo.png: χ of a simulated 7 T head, from its wrapped phase, beside the truth."""

from pathlib import Path

import matplotlib.pyplot as plt
from torch import Tensor

from k2chi.ops.fourier import keep_memory
from k2chi.phantom import challenge
from k2chi.pipeline import Pipeline


def main() -> None:
    keep_memory()
    scan = challenge()
    chi = Pipeline()(scan.echoes).chi
    assert chi is not None
    brain = scan.truth.brain
    zero = scan.truth.chi_ppm[brain].mean()
    rows = {
        "wrapped phase": (scan.echoes.signal[2].angle(), -3.14, 3.14),
        "χ from it": ((chi.ppm - chi.ppm[brain].mean()) * chi.mask, -0.1, 0.2),
        "true χ": ((scan.truth.chi_ppm - zero) * brain, -0.1, 0.2),
    }
    at = [84, 104, 128]
    figure, axes = plt.subplots(len(rows), 3, figsize=(9.6, 10.2), facecolor="#101214")
    for line, (name, (volume, low, high)) in zip(axes, rows.items(), strict=True):
        for axis, plane in zip(line, planes(volume, at), strict=True):
            axis.imshow(plane.T.numpy(), origin="lower", cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
        line[0].set_title(name, color="white", loc="left", fontsize=12)
    figure.tight_layout(pad=0.3)
    out = Path(__file__).parent / "images" / "demo.png"
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out, dpi=80)


def planes(volume: Tensor, at: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Sagittal, coronal and axial plane, cut to the head."""
    x, y, z = at
    return volume[x, :, 40:], volume[:, y, 40:], volume[:, :, z]


if __name__ == "__main__":
    main()
