"""What each tissue is made of: χ, R2*, R1 and M0 from the literature, for any field strength and age.

Values: the in-silico head of the second reconstruction challenge (Marques 2021, MRM 86:526,
doi:10.1002/mrm.28716) and common literature values at 3 T and 7 T. χ is relative to water, so soft tissue
lies within ±0.2 ppm, **air at +9.4 ppm and cortical bone at −2.1 ppm**: water is diamagnetic
(−9.05 ppm), air is nearly neutral (+0.36 ppm), and bone is more diamagnetic than water.
"""

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

AIR_PPM = 9.4
"""χ of air relative to water [ppm]."""
FAT_SHIFT_PPM = -3.4
"""Chemical shift of fat relative to water [ppm]; it moves the signal's phase, and is no susceptibility."""


@dataclass(frozen=True)
class Tissue:
    """Properties of one tissue at every field strength."""

    chi_ppm: float
    """Mean susceptibility relative to water [ppm]."""
    r2star_3t_per_s: float
    """R2* at 3 T [1/s]; other field strengths lie on the line through 3 T and 7 T."""
    r2star_7t_per_s: float
    """R2* at 7 T [1/s]."""
    t1_7t_s: float
    """T1 at 7 T [s]."""
    m0: float
    """Proton density relative to water, 0 to 1."""
    chi_texture_ppm: float = 0.0
    """Standard deviation of the smooth variation of χ inside the tissue [ppm]."""
    shift_ppm: float = 0.0
    """Chemical shift of its protons [ppm]."""
    t1_ratio_3t: float = 0.73
    """T1 at 3 T over T1 at 7 T."""

    def r2star_per_s(self, b0_tesla: float) -> float:
        """R2* [1/s]: a part that does not depend on B0 plus one that grows with it."""
        slope = (self.r2star_7t_per_s - self.r2star_3t_per_s) / 4
        floor = 0.5 * self.r2star_3t_per_s
        return max(self.r2star_3t_per_s + slope * (b0_tesla - 3), floor)

    def r1_per_s(self, b0_tesla: float) -> float:
        """R1 [1/s] from a power law through 3 T and 7 T."""
        power = log(1 / self.t1_ratio_3t) / log(7 / 3)
        return 1 / (self.t1_7t_s * exp(power * log(b0_tesla / 7)))


TISSUES: dict[str, Tissue] = {
    "air": Tissue(AIR_PPM, 500, 900, 1.0, 0.0),
    "skin": Tissue(0.0, 45, 70, 1.4, 0.65),
    "fat": Tissue(0.019, 40, 60, 0.37, 0.90, 0.01, FAT_SHIFT_PPM, 0.95),
    "muscle": Tissue(0.0, 28, 40, 1.5, 0.75, 0.01),
    "bone": Tissue(-2.1, 500, 600, 0.5, 0.06, 0.1),
    "marrow": Tissue(-0.6, 90, 160, 0.40, 0.55, 0.05, FAT_SHIFT_PPM, 0.95),
    "mucosa": Tissue(0.0, 25, 40, 1.7, 0.80),
    "eye": Tissue(0.0, 1.5, 3, 4.0, 0.98, 0, 0, 1.0),
    "dura": Tissue(0.0, 60, 90, 1.3, 0.45),
    "csf": Tissue(0.019, 1, 2, 4.3, 1.0, 0.002, 0, 1.0),
    "cortex": Tissue(0.020, 17, 32, 1.9, 0.82, 0.008),
    "white matter": Tissue(-0.030, 20, 38, 1.2, 0.70, 0.008),
    "brainstem": Tissue(-0.015, 20, 38, 1.3, 0.72, 0.010),
    "caudate": Tissue(0.044, 24, 48, 1.7, 0.80, 0.008, 0, 0.65),
    "putamen": Tissue(0.038, 28, 58, 1.6, 0.80, 0.010, 0, 0.65),
    "pallidum externum": Tissue(0.136, 45, 110, 1.3, 0.72, 0.015, 0, 0.65),
    "pallidum internum": Tissue(0.122, 44, 106, 1.3, 0.72, 0.015, 0, 0.65),
    "red nucleus": Tissue(0.100, 40, 80, 1.4, 0.74, 0.010, 0, 0.65),
    "nigra compacta": Tissue(0.096, 38, 80, 1.4, 0.74, 0.012, 0, 0.65),
    "nigra reticulata": Tissue(0.122, 48, 95, 1.4, 0.74, 0.012, 0, 0.65),
    "subthalamic": Tissue(0.105, 42, 88, 1.4, 0.74, 0.010, 0, 0.65),
    "dentate": Tissue(0.152, 42, 80, 1.5, 0.75, 0.015, 0, 0.65),
    "thalamus": Tissue(0.020, 22, 45, 1.5, 0.76, 0.010, 0, 0.65),
    "choroid plexus": Tissue(0.040, 30, 60, 1.8, 0.85, 0.03),
    "vein": Tissue(0.190, 30, 90, 2.0, 0.85, 0.005),
    "calcification": Tissue(-2.2, 130, 200, 1.0, 0.20, 0.1),
    "microbleed": Tissue(0.60, 120, 250, 1.4, 0.60),
    "lesion core": Tissue(0.010, 13, 24, 2.1, 0.90, 0.004),
    "lesion hyperintense": Tissue(0.045, 15, 28, 2.0, 0.88, 0.006),
    "lesion isointense": Tissue(-0.024, 14, 26, 2.0, 0.88, 0.006),
    "lesion rim": Tissue(0.060, 28, 55, 1.6, 0.80, 0.008),
}
"""The table, by tissue."""

SIDED = (
    "caudate",
    "putamen",
    "pallidum externum",
    "pallidum internum",
    "red nucleus",
    "nigra compacta",
    "nigra reticulata",
    "subthalamic",
    "dentate",
    "thalamus",
)
"""Deep nuclei: a label on each side."""

_MIDLINE = (
    "cortex",
    "white matter",
    "brainstem",
    "cerebellar cortex",
    "csf",
    "lateral ventricle",
    "third ventricle",
    "fourth ventricle",
    "choroid plexus",
    "cortical vein",
    "deep vein",
    "dural sinus",
    "calcification",
    "microbleed",
    "lesion hyperintense",
    "lesion isointense",
    "lesion rim",
    "lesion core",
    "dura",
    "skin",
    "fat",
    "muscle",
    "bone",
    "marrow",
    "mucosa",
    "air sinus",
    "eye",
)

LABELS: dict[int, str] = {0: "air"}
LABELS.update(
    {1 + i: f"{n} {s}" for i, (n, s) in enumerate((n, s) for n in SIDED for s in ("left", "right"))}
)
LABELS.update(enumerate(_MIDLINE, 30))
"""Label number to name. Left is the subject's left (negative x)."""

LABEL_OF: dict[str, int] = {name: number for number, name in LABELS.items()}
"""Name to label number."""

_MADE_OF = {
    "cerebellar cortex": "cortex",
    "lateral ventricle": "csf",
    "third ventricle": "csf",
    "fourth ventricle": "csf",
    "cortical vein": "vein",
    "deep vein": "vein",
    "dural sinus": "vein",
    "air sinus": "air",
}

_GROUPS = {
    "caudate": 1,
    "pallidum externum": 2,
    "pallidum internum": 2,
    "putamen": 3,
    "red nucleus": 4,
    "dentate": 5,
    "nigra compacta": 6,
    "nigra reticulata": 6,
    "subthalamic": 6,
    "thalamus": 7,
    "white matter": 8,
    "brainstem": 8,
    "lesion hyperintense": 8,
    "lesion isointense": 8,
    "lesion rim": 8,
    "lesion core": 8,
    "cortex": 9,
    "csf": 10,
    "choroid plexus": 10,
    "vein": 11,
    "microbleed": 11,
    "fat": 12,
    "marrow": 12,
    "bone": 13,
    "air": 14,
    "skin": 15,
    "muscle": 15,
    "mucosa": 15,
    "eye": 15,
    "dura": 15,
    "calcification": 16,
}


def tissue_of(label: int) -> str:
    """The tissue that a label is made of."""
    name = LABELS[label].removesuffix(" left").removesuffix(" right")
    return _MADE_OF.get(name, name)


CHALLENGE_GROUP: dict[int, int] = {n: _GROUPS[tissue_of(n)] for n in LABELS}
"""Label number to the challenge's group: 1 caudate, 2 pallidum, 3 putamen, 4 red nucleus, 5 dentate,
6 nigra and subthalamic, 7 thalamus, 8 white matter, 9 grey matter, 10 CSF, 11 vein, 12 fat, 13 bone, 14 air,
15 muscle, 16 calcification. Its metrics take 1–6 as deep grey matter, 7–9 as tissue, 11 as blood."""

BRAIN_LABELS: tuple[int, ...] = tuple(n for n, g in CHALLENGE_GROUP.items() if g in {*range(1, 12), 16})
"""Labels that may lie in the brain mask."""

IRON_PPM = 0.0089
"""χ of 1 mg iron in 100 g wet tissue [ppm] (about 0.9 ppb a µg/g; Langkammer 2012, NeuroImage 62:1593,
doi:10.1016/j.neuroimage.2012.05.049)."""
REFERENCE_AGE_YEARS = 40.0
"""Age at which the table holds [years]."""

# Plateau [mg/100 g] and rate [1/year] of non-haem iron. Caudate, putamen and pallidum: Hallgren & Sourander
# 1958, J Neurochem 3:41, doi:10.1111/j.1471-4159.1958.tb12607.x. For the others they give adult means only;
# the rate is our choice, between those of putamen and pallidum.
_IRON = {
    "caudate": (9.66, 0.05),
    "putamen": (14.62, 0.04),
    "pallidum externum": (21.41, 0.09),
    "pallidum internum": (21.41, 0.09),
    "red nucleus": (19.5, 0.06),
    "nigra compacta": (18.5, 0.07),
    "nigra reticulata": (18.5, 0.07),
    "subthalamic": (18.5, 0.06),
    "dentate": (10.4, 0.05),
}


def iron_change(tissue: str, age_years: float) -> float:
    """Iron gained since the reference age [mg/100 g wet]: plateau · (exp(−rate·40) − exp(−rate·age))."""
    plateau, rate = _IRON.get(tissue, (0.0, 0.0))
    return plateau * (exp(-rate * REFERENCE_AGE_YEARS) - exp(-rate * age_years))


def tissues(age_years: float = 40.0, seed: int = 0, spread: float = 1.0) -> dict[str, Tissue]:
    """The table of one person: nuclei follow age, and each value has its seeded spread between persons.

    χ gains 0.0089 ppm for each mg/100 g of iron, and R2* 137 s⁻¹ for each ppm at 3 T (in proportion to B0).
    `spread` 1 scatters χ of a nucleus by 12 % (0.6 to 1.5 of its mean at most), veins by 10 %, other
    tissues of the brain by 4 %; R2*, R1 and M0 by 5, 3 and 2 %. Zero gives the table itself.
    """
    if not 0 <= age_years <= 120:
        raise ValueError(f"an age of {age_years} years is not a human one: give 0 to 120")
    rng = np.random.default_rng([seed, 1])
    out = {}
    for name, t in TISSUES.items():
        grown = IRON_PPM * iron_change(name, age_years)
        g = rng.standard_normal(4) * spread
        nucleus, outside = name in _IRON, name in ("air", "bone", "fat")
        by = 0.0 if outside else 0.12 if nucleus else 0.10 if name == "vein" else 0.04
        factor = float(np.clip(np.exp(by * g[0]), 0.6, 1.5))
        wider = 1 + 0.05 * float(np.clip(g[1], -2.5, 2.5))
        slope = 0.0 if not nucleus else 137.0 * (grown * factor + t.chi_ppm * (factor - 1))
        out[name] = replace(
            t,
            chi_ppm=(t.chi_ppm + grown) * factor,
            r2star_3t_per_s=max(t.r2star_3t_per_s * wider + slope, 5.0 if nucleus else 0.5),
            r2star_7t_per_s=max(t.r2star_7t_per_s * wider + slope * 7 / 3, 10.0 if nucleus else 1.0),
            t1_7t_s=t.t1_7t_s * float(np.exp(0.03 * np.clip(g[2], -2.5, 2.5))),
            m0=min(t.m0 * float(np.exp(0.02 * np.clip(g[3], -2.5, 2.5))), 1.0),
        )
    return out
