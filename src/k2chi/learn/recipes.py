"""What there is to train: a network, its data, its loss and its schedule, each under a name."""

from dataclasses import dataclass, replace
from typing import Literal

from k2chi.learn.closedform import ClosedForm
from k2chi.learn.losses import Loss
from k2chi.learn.measured import Measurement
from k2chi.learn.simulate import Anything
from k2chi.nets import (
    DEEPQSM,
    QSMNET,
    AdaptiveTVConfig,
    NetworkConfig,
    SIQSMConfig,
    UNetConfig,
    UnrolledConfig,
)

Data = Anything | ClosedForm
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on; it stands inside each checkpoint."""

    network: NetworkConfig
    data: Data
    loss: Loss = "relative"
    steps: int = 20_000
    """Updates of the weights."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    learning_rate: float = 1e-3
    """Of Adam, after the warm-up; it falls to a hundredth along half a cosine."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Memory of Adam's two means."""
    decay: float = 0.0
    """Decoupled weight decay."""
    warmup: int = 100
    """Updates over which the learning rate rises; 0: constant learning rate from the start to the end."""
    clip: float = 1.0
    """Largest norm of a gradient; 0: no limit."""
    average: float = 0.999
    """Memory of the running mean of the weights, which is what is shipped."""
    precision: Precision = "float32"
    """bfloat16: layers compute in half precision, everything else in single."""
    seed: int = 0
    """Of the first weights and of the data."""
    stretch: float = 1.0
    """Fields and maps are multiplied by up to this: the scaling augmentation of QSMnet+."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.accumulate < 1 or self.learning_rate <= 0 or self.stretch < 1:
            raise ValueError("training needs steps, batches and a learning rate above zero, and stretch ≥ 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"an average of {self.average} has no end: choose 0 ≤ average < 1")


CLASSES: tuple[type, ...] = (
    *(Recipe, Anything, ClosedForm, Measurement),
    *(AdaptiveTVConfig, SIQSMConfig, UNetConfig, UnrolledConfig),
)
"""What a checkpoint may speak of."""

ISOTROPIC = Anything(batch=16, oblique=0.0, anisotropy=1.0, voxel_mm=(1.0, 1.0))
LARGE = UnrolledConfig(steps=8, widths=(16, 48, 96), depth=2)
WIDE = AdaptiveTVConfig(inner=8, widths=(16, 48, 96), depth=2)
SMALL = UnrolledConfig(steps=4, widths=(8, 24, 32), depth=1)
CUBES = Anything(
    size=32,
    batch=2,
    persons=1,
    residual=0.05,
    measurement=Measurement(snr=(20.0, 1000.0), faults=0.05, worn=0.15, flat=0.4),
)
SCANNED = Anything(finer=0.8, imaged=0.75)
"""As scans are: cubes whose field is that of their voxels' χ teach a trust that no scan earns."""
SCANNED_CUBES = replace(CUBES, size=48, persons=3, finer=SCANNED.finer, imaged=SCANNED.imaged)
AXIAL_CUBES = replace(CUBES, oblique=0.0, anisotropy=1.0, voxel_mm=(1.0, 1.0))


def _large(network: NetworkConfig, data: Anything) -> Recipe:
    """Ours as a GPU can learn it."""
    return Recipe(network, data, steps=30_000, decay=1e-4, precision="bfloat16")


def _small(network: NetworkConfig, data: Anything) -> Recipe:
    """Ours as a CPU can learn it within the hour."""
    return Recipe(network, data, steps=2_000, learning_rate=2e-3, average=0.99)


def _rival(network: NetworkConfig, data: Anything, steps: int, learning_rate: float) -> Recipe:
    """A published network as a CPU can learn it in an hour or so."""
    return Recipe(network, data, steps=steps, learning_rate=learning_rate, precision="bfloat16")


RECIPES: dict[str, Recipe] = {
    "unrolled": _large(LARGE, replace(SCANNED, size=48, batch=16)),
    "unrolled-total": _large(
        replace(LARGE, total=True, start=25), replace(SCANNED, size=64, batch=8, total=True)
    ),
    "adaptive-tv-large": _large(WIDE, replace(SCANNED, size=64, batch=8)),
    "adaptive-tv-total": _large(
        replace(WIDE, total=True, relax=1.8), replace(SCANNED, size=64, batch=8, total=True)
    ),
    "adaptive-tv": replace(
        _small(
            AdaptiveTVConfig(widths=(16, 32, 48)),
            replace(SCANNED_CUBES, measurement=replace(CUBES.measurement, snr=(10.0, 1000.0))),
        ),
        steps=4_000, learning_rate=1e-3, decay=1e-4, average=0.995, precision="bfloat16",
    ),
    "adaptive-tv-total-cpu": replace(
        _small(
            AdaptiveTVConfig(inner=8, relax=1.8, widths=(16, 32, 48), total=True),
            replace(SCANNED_CUBES, total=True),
        ),
        steps=2_400, learning_rate=1e-3, decay=1e-4, average=0.99, precision="bfloat16",
    ),
    "unrolled-cpu": _small(SMALL, CUBES),
    "deepqsm-cpu": _rival(DEEPQSM, replace(AXIAL_CUBES, size=48), steps=8_000, learning_rate=1e-3),
    "si-qsm-cpu": _rival(SIQSMConfig(), AXIAL_CUBES, steps=5_500, learning_rate=5e-4),
    "qsmnet-plus-cpu": replace(
        _rival(QSMNET, AXIAL_CUBES, steps=1_500, learning_rate=1e-3), loss="qsmnet", stretch=4.0
    ),
    "unrolled-total-cpu": _small(replace(SMALL, total=True), replace(CUBES, total=True)),
    "si-qsm-text": Recipe(
        SIQSMConfig(), ClosedForm(batch=12), "thesis", steps=27_307, learning_rate=1.5e-4, betas=(0.9, 0.999),
        warmup=0, clip=0.0,
    ),
    "si-qsm-code": Recipe(
        SIQSMConfig(), ClosedForm(batch=22, released=True), "released", steps=14_895, learning_rate=1e-5,
        warmup=0, clip=0.0,
    ),
    "si-qsm": Recipe(SIQSMConfig(), ISOTROPIC, steps=20_000, learning_rate=3e-4, precision="bfloat16"),
    "deepqsm": Recipe(DEEPQSM, ISOTROPIC, "squared", learning_rate=3e-4, precision="bfloat16"),
    "qsmnet-plus": Recipe(
        QSMNET, replace(ISOTROPIC, size=64), "qsmnet", learning_rate=1e-3, precision="bfloat16", stretch=4.0,
    ),
}  # fmt: skip
"""Names that `k2chi train` knows. `-cpu` ones are small enough for a CPU; `si-qsm-text` and `-code` are the
published recipes (65 536 cubes, five epochs), the others learn from our data."""
