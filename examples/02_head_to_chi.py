# %% [markdown]
# # From a scan of a head to χ, and five inversions of it
#
# The digital head is made by code. Its scan has wrapped phase, a phase offset, a background field from bone
# and air, and noise; its truth is known.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from k2chi.invert import FANSI, NDI, TKD, ClosedFormL2
from k2chi.measure.quality import quality
from k2chi.measure.roi import regions
from k2chi.ops.fourier import keep_memory
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import quick
from k2chi.pipeline import Pipeline

keep_memory()
simulation = quick(DigitalHead(seed=3), seed=3)
echoes, truth = simulation.echoes, simulation.truth
print(tuple(echoes.signal.shape), "echoes and voxels,", echoes.grid.voxel_mm, "mm,", echoes.scan)

# %% [markdown]
# ## The whole chain
#
# A pipeline is a method made of methods; each stage is a field. Calling it returns every map on the way.

# %%
pipeline = Pipeline(invert=FANSI(iterations=60))  # fewer than by default, to keep this short
maps = pipeline(echoes)
for stage, seconds in maps.seconds.items():
    print(f"{seconds:6.1f} s  {stage}: {getattr(pipeline, stage)}")
assert maps.chi is not None
assert maps.local is not None

# %% [markdown]
# ## Five inversions of one local field
#
# Results on the way are values, so a comparison runs the last stage alone.

# %%
inversions = {
    "TKD": TKD(),
    "closed-form L2": ClosedFormL2(),
    "NDI": NDI(),
    "FANSI, linear": FANSI(nonlinear=False, iterations=40),
}
found = {name: pipeline.reference(invert(maps.local)) for name, invert in inversions.items()}
found["FANSI"] = maps.chi
print(f"{'':16s} {'NRMSE':>7s} {'XSIM':>6s} {'slope of deep nuclei':>21s}")
for name, chi in found.items():
    score = quality(chi.ppm, truth.chi_ppm, truth.brain, truth.group)
    print(f"{name:16s} {score['nrmse']:6.1f}% {score['xsim']:6.3f} {score['dgm_slope']:21.2f}")
    assert score["correlation"] > 0.3

# %% [markdown]
# The same inversion of the true local field shows what all stages before it cost.

# %%
oracle = quality(pipeline.invert(truth.local()).ppm, truth.chi_ppm, truth.brain, truth.group)
print(f"from the true local field: {oracle['nrmse']:.1f} %, XSIM {oracle['xsim']:.3f}")
assert oracle["nrmse"] < quality(maps.chi.ppm, truth.chi_ppm, truth.brain)["nrmse"]

# %% [markdown]
# ## Deep nuclei
#
# Labels come with the simulation here; with a real scan they are yours. Both maps are relative to the
# brain's mean.

# %%
zero = float(truth.chi_ppm[truth.brain].mean())
names = {n: name for n, name in truth.names.items() if name.startswith(("caudate", "putamen", "pallidum"))}
for row in regions(maps.chi, truth.labels, names):
    where = (truth.labels == row.label) & truth.brain
    if row.label in names and where.any():
        true = float(truth.chi_ppm[where].mean()) - zero
        print(f"{row.name:24s} {row.mean_ppm:+.3f} ± {row.sd_ppm:.3f} ppm, truth {true:+.3f}")

# %% [markdown]
# ## A look

# %%
k = truth.brain.shape[2] // 2
shown = {"truth": truth.chi_ppm * truth.brain, **{name: chi.ppm for name, chi in found.items()}}
figure, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 4))
for axis, (name, volume) in zip(axes, shown.items(), strict=True):
    axis.imshow(volume[:, :, k].T, cmap="gray", vmin=-0.1, vmax=0.2, origin="lower")
    axis.set_title(name)
    axis.axis("off")
Path("out").mkdir(exist_ok=True)
figure.savefig("out/inversions.png", dpi=100, bbox_inches="tight")
