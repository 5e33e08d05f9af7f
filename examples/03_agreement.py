# %% [markdown]
# # Two readers, and lesions that are not independent
#
# Seven patients, some 60 lesions each, two readers, two ways to make the map. The table of such a study has
# four hundred rows, and a test that takes each row as independent finds almost anything. This example makes
# studies in which nothing is to be found, counts what is found all the same, and then reads one study both
# ways.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from k2chi.measure.agreement import agreement
from k2chi.measure.association import paired_t, wilcoxon
from k2chi.measure.clustered import clustered_difference, sign_flip
from k2chi.measure.clustered_agreement import clustered_agreement

PATIENTS, LESIONS = 7, 60
who = np.repeat([f"sub-{k:02d}" for k in range(1, PATIENTS + 1)], LESIONS)


def differences(random: np.random.Generator, shared: float) -> np.ndarray:
    """New minus old score of each lesion; none on average, but each patient leans one way by `shared`."""
    lean = shared * random.normal(size=PATIENTS)
    return np.repeat(lean, LESIONS) + random.normal(size=PATIENTS * LESIONS)


# %% [markdown]
# ## Studies without any effect
#
# In each study a patient's lesions lean together by a third of the spread of a single lesion: a correlation
# of 0.1 inside patients, hardly to be seen in a plot. A test at 5 % should find something in 5 % of studies.

# %%
random, studies = np.random.default_rng(1), 200
found = np.zeros(2)
for _ in range(studies):
    d = differences(random, shared=1 / 3)
    tests = (paired_t(d, np.zeros_like(d)), sign_flip(d, who))
    found += [(t.p or 0.0) < 0.05 for t in tests]
naive, by_patient = found / studies
print(f"found in {naive:.0%} of studies without effect, taking lesions as independent")
print(f"found in {by_patient:.0%} of them, turning the signs of whole patients")
assert naive > 0.3
assert by_patient < 0.1

# %% [markdown]
# ## One study, read both ways
#
# Six figures for one difference, which is not there. The first two are what papers print; the others count
# patients. Seven patients also set a floor: however large the effect, no exact test of them goes below
# p = 0.0156.

# %%
d = differences(np.random.default_rng(17), shared=1 / 3)
old = np.random.default_rng(4).normal(3, 1, len(d))
results = clustered_difference(old + d, old, who)
for r in results:
    print(r.sentence())
assert results.naive.p < 0.001  # as it would have been published
assert results.flip.p > 0.2
assert np.diff(results.flip.ci)[0] > 2 * np.diff(results.naive.ci)[0]
assert any("7 patients cannot reach p < 0.0156" in n for n in results.flip.notes)

overwhelming = wilcoxon(np.arange(1.0, 8.0), np.zeros(7))
print(f"seven differences, all of one sign: p = {overwhelming.p:.4f}")
assert overwhelming.p == 2 / 2**7

# %% [markdown]
# ## Two readers and a rare finding
#
# Both readers see the same 9 % of lesions with a rim and err in 2 % of cases. They agree on 95 %, yet κ is
# far lower: with one class rare, chance alone agrees often. AC1 and PABAK, and the agreement on each class,
# say what κ hides. Their intervals come twice again.

# %%
random = np.random.default_rng(6)
rim = random.random(len(who)) < 0.09
reads = [np.where(random.random(len(who)) < 0.02, ~rim, rim).astype(int) for _ in range(2)]
once = agreement(*reads, categories=(0, 1))
for r in (once.raw, once.kappa, once.ac1, once.pabak, *once.specific):
    print(r.sentence())
again = clustered_agreement(*reads, categories=(0, 1), cluster=who)
for r in again:
    print(r.sentence())
    print("   ", "; ".join(r.notes))
assert once.raw.estimate > 0.93
assert once.kappa.estimate < once.pabak.estimate < once.ac1.estimate
assert any("the interval is too narrow" in n for n in again[1].notes)

constant = agreement(np.zeros(9, int), reads[0][:9], categories=(0, 1)).kappa
print(constant.sentence(), *constant.notes)
assert constant.estimate is None

# %% [markdown]
# From files, `k2chi stats` does all of this: `--test clustered` and `--test kappa` with `--subject` and
# `--item` notice by themselves that a patient has several lesions.

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for k, r in enumerate(reversed(results)):
    colour = "grey" if k >= len(results) - 2 else "tab:blue"
    if r.ci:
        axes.plot(r.ci, [k, k], color=colour)
    axes.plot([r.estimate], [k], "s", color=colour)
axes.set_yticks(range(len(results)), [r.name for r in reversed(results)], fontsize=8)
axes.axvline(0, color="black", lw=0.6, ls=":")
axes.set(xlabel="new − old [points]")
axes.set_title("no true difference; grey: lesions taken as independent", fontsize=9)
Path("out").mkdir(exist_ok=True)
figure.savefig("out/agreement.png", dpi=100)
