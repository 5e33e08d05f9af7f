"""The methods paragraph of a run, with its citations; drawn from what the methods say of themselves."""

from collections.abc import Collection

import torch

from k2chi import __version__
from k2chi.about import citations, differences, used
from k2chi.data import Grid, Scan
from k2chi.pipeline import Pipeline

DOES = {
    "recon": "raw data were reconstructed by",
    "recon.assemble": "readouts were put in place by",
    "recon.assemble.ramp": "ramp samples were turned into images along the readout by",
    "recon.assemble.ghost": "EPI ghosts were corrected with",
    "recon.assemble.shots": "phases of shots were corrected with",
    "recon.assemble.averages": "averages were brought into phase by",
    "recon.compression": "coils were compressed with",
    "recon.maps": "coil sensitivities were found with",
    "recon.unfold": "images were reconstructed with",
    "recon.partial": "partial Fourier was treated with",
    "recon.window": "k-space was faded out with",
    "recon.unwarp": "images of EPI were put where they belong by a field map with",
    "recon.interpolate": "images were interpolated with",
    "coils": "coil images were combined with",
    "offsets": "phase offsets were treated with",
    "mask": "the brain was masked with",
    "unwrap": "phase was unwrapped with",
    "combine": "echoes were combined into a field map with",
    "r2star": "R2* was fitted with",
    "background": "the background field was removed with",
    "invert": "the local field was turned into susceptibility with",
    "reference": "susceptibility was referenced with",
    "separate": "para- and diamagnetic sources were told apart with",
    "swi": "susceptibility-weighted images were made with",
}


def _number(x: float) -> str:
    return f"{x:.4g}"


def paragraph(
    pipeline: Pipeline,
    recipe: str,
    grid: Grid,
    scan: Scan,
    stages: Collection[str],
    what: str = "Susceptibility maps",
    idle: Collection[str] = (),
) -> tuple[str, list[str]]:
    """One paragraph on how `what` was made by the stages that ran, without steps that had nothing to do, and
    the numbered sources it refers to."""
    sources: list[str] = []
    said = []
    for stage, method in used(pipeline):
        if stage.split(".")[0] not in stages or stage in idle:
            continue
        numbers = []
        for source in citations(type(method)):
            if source not in sources:
                sources.append(source)
            numbers.append(sources.index(source) + 1)
        own = {k: v for k, v in differences(method).items() if not isinstance(v, dict)}
        changed = ", ".join(f"{k} = {v}" for k, v in own.items())
        cited = f" [{', '.join(map(str, numbers))}]" if numbers else ""
        settings = f" ({changed})" if changed else ""
        said.append(f"{DOES.get(stage, stage + ' with')} {type(method).__name__}{cited}{settings}")
    tes = ", ".join(_number(1e3 * t) for t in scan.te_s)
    size = " × ".join(_number(v) for v in grid.voxel_mm)
    text = (
        f"{what} were computed with k2chi {__version__} (PyTorch {torch.__version__}), "
        f"recipe {recipe}, from gradient echoes at {_number(scan.b0_tesla)} T with echo times of {tes} ms "
        f"and voxels of {size} mm. "
    )
    if said:
        text += "In this order, " + "; ".join(said) + ". "
    text += "Settings not mentioned are the defaults of that version; the recipe stands beside them."
    return text, sources


def markdown(text: str, sources: list[str]) -> str:
    """The paragraph and its sources as a small document."""
    lines = [f"{i}. {s}" for i, s in enumerate(sources, 1)]
    return "# Methods\n\n" + text + "\n\n## Sources\n\n" + "\n".join(lines) + "\n"
