"""The whole flow: starts and stops anywhere, says what it did, and finds the truth on a small head."""

import warnings
from dataclasses import dataclass, replace

import pytest
import torch

from k2chi import config
from k2chi.background.vsharp import VSHARP
from k2chi.data import Chi, Coils, Echoes, Field, KSpace, Maps
from k2chi.field.coils_offset import MCPC3DSCoils
from k2chi.field.fit import WeightedFit
from k2chi.field.mask import MagnitudeMask
from k2chi.field.mdi import MDI
from k2chi.field.offsets import MCPC3DS, KeepOffset
from k2chi.field.r2star import LogLinear
from k2chi.field.romeo import ROMEO
from k2chi.field.swi import SWI
from k2chi.invert.tkd import TKD
from k2chi.joint import TGV
from k2chi.measure.quality import correlation
from k2chi.measure.reference import MaskMean, NoReference
from k2chi.ops.fourier import fft
from k2chi.phantom import GRE, DigitalHead, box
from k2chi.pipeline import Pipeline
from k2chi.recon import CGSENSE, SparseSENSE
from k2chi.recon.reconstruct import Reconstruct
from k2chi.separate import R2StarSeparation

QUICK = Pipeline(mask=MagnitudeMask(), background=VSHARP(), invert=TKD())
"""The stages matter here, not the map."""
TE = (0.006, 0.014, 0.022, 0.030)


def scanned(**settings):
    """A head at 4 mm and 3 T, simulated on that very grid."""
    gre = GRE(**{"te_s": TE, "b0_tesla": 3.0, "fine_mm": 0.0, **settings})
    return gre(DigitalHead(1), box((4.0, 4.0, 4.0)))


@pytest.fixture(scope="module")
def scan():
    return scanned()


@pytest.fixture(scope="module")
def whole(scan):
    return QUICK(scan.echoes)


def agreement(maps, truth):
    """Correlation with the true χ over the true brain, as far as the map goes."""
    return correlation(maps.chi.ppm, truth.chi_ppm, maps.chi.mask & truth.brain)


def never(method):
    """A method of the same kind that must not run."""

    def __call__(self, *given):
        raise AssertionError(f"{type(self).__name__} must not run")

    return type(f"Never{method.__name__}", (method,), {"__call__": __call__})()


NEVER = {
    "offsets": never(MCPC3DS),
    "mask": never(MagnitudeMask),
    "unwrap": never(ROMEO),
    "combine": never(WeightedFit),
    "r2star": never(LogLinear),
    "background": never(VSHARP),
    "invert": never(TKD),
}


def without(*stages):
    """The pipeline in which these stages must not run."""
    return replace(QUICK, **{s: NEVER[s] for s in stages})


ECHOES_ONLY = ("offsets", "mask", "unwrap", "combine", "r2star")


@dataclass(frozen=True)
class Muttering(MagnitudeMask):
    """A mask that warns."""

    def __call__(self, echoes: Echoes) -> Echoes:
        for words in ("the coil is cold", "the coil is cold", "mind the gap"):
            warnings.warn(words, stacklevel=1)
        return super().__call__(echoes)


# ---- coils


def seen_by(echoes, coils=5):
    """What `coils` coils around the head see of the echoes, each with a smooth phase of its own."""
    axes = [torch.linspace(-1, 1, n) for n in echoes.grid.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    sees = []
    for c in range(coils):
        turn = 2 * torch.pi * c / coils
        a, b = torch.cos(torch.tensor(turn)), torch.sin(torch.tensor(turn))
        sees.append(
            torch.polar(1 / (1.5 + (x - 1.2 * a) ** 2 + (y - 1.2 * b) ** 2), turn + a * y + 2 * b * z)
        )
    signal = echoes.signal[:, None] * torch.stack(sees)
    return Coils(signal, echoes.grid, echoes.scan, echoes.mask)


@pytest.mark.parametrize(
    "stages",
    [{}, {"coils": MCPC3DSCoils(), "offsets": KeepOffset()}, {"coils": MDI(), "offsets": KeepOffset()}],
    ids=["adaptive", "MCPC-3D-S", "MDI"],
)
def test_coils_come_to_the_same_total_field(scan, whole, stages):
    """Whatever combines them: the field agrees with that of the combined scan, up to a constant."""
    chain = replace(QUICK, **stages)
    maps = chain(seen_by(replace(scan.echoes, mask=whole.mask)), until="total")
    assert "coils" in maps.seconds
    off = (maps.total.ppm - whole.total.ppm)[whole.mask]
    assert float((off - off.median()).abs().median()) < 0.02 * float(whole.total.ppm[whole.mask].std())


@pytest.mark.parametrize("unfold", [CGSENSE(), SparseSENSE(iterations=10)], ids=["CG-SENSE", "sparse"])
def test_undersampled_kspace_comes_to_the_same_total_field(scan, whole, unfold):
    """Half of the lines beside the centre, from noise samples on: the field of the combined scan."""
    coils = seen_by(scan.echoes)
    ny, nz = coils.grid.shape[1:]
    fy = (torch.fft.fftfreq(ny) * ny).round().long()
    sampled = ((fy % 2 == 0) | (fy.abs() < 10))[None, None, :, None].expand(1, 1, ny, nz)
    noise = 1e-3 * torch.randn(5, 1000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    data = KSpace(fft(coils.signal) * sampled[:, None], sampled, coils.grid, coils.scan, noise)
    chain = replace(QUICK, recon=Reconstruct(unfold=unfold))
    maps = chain(data, until="total")
    assert "recon" in maps.seconds
    assert not maps.warnings
    both = whole.mask & maps.mask
    off = (maps.total.ppm - whole.total.ppm)[both]
    assert float((off - off.median()).abs().median()) < 0.05 * float(whole.total.ppm[whole.mask].std())


def test_recipes_reach_every_setting_of_the_reconstruction():
    """By one line each, and back through TOML; a lone method need not be named."""
    lines = ['recon.unfold.method = "SparseSENSE"', "recon.unfold.levels = 2", "recon.whiten = false"]
    made = config.change(Pipeline(), [*lines, 'recon.compression.method = "none"', "recon.maps.crop = 0.5"])
    assert made.recon.unfold == SparseSENSE(levels=2)
    assert (made.recon.whiten, made.recon.compression, made.recon.maps.crop) == (False, None, 0.5)
    assert config.loads(config.dumps(made), Pipeline) == made
    assert config.loads("[recon]\nwhiten = false", Pipeline).recon == Reconstruct(whiten=False)
    with pytest.raises(ValueError, match=r"recon\.unfold has no method 'CGSens'.*did you mean CGSENSE"):
        config.change(Pipeline(), ['recon.unfold.method = "CGSens"'])


# ---- methods that take the phase, and sources told apart


@dataclass(frozen=True)
class Looking(TGV):
    """Notes what it was given, and returns an empty map."""

    def __call__(self, phase):
        SEEN.append(phase)
        mask = phase.mask
        return Chi(torch.zeros(phase.grid.shape), mask, phase.grid)


SEEN: list[Echoes | Field] = []


def test_a_method_for_phase_gets_echoes_without_offset_and_else_the_field(scan, whole):
    """From echoes the wrapped signal; from a field map that field; and a later run of maps sees the same."""
    chain = replace(QUICK, invert=Looking(), background=never(VSHARP))
    SEEN.clear()
    maps = chain(scan.echoes)
    assert isinstance(SEEN[0], Echoes)
    assert torch.equal(SEEN[0].mask, maps.mask)
    free = MCPC3DS()(replace(scan.echoes, mask=maps.mask))
    torch.testing.assert_close(SEEN[0].signal, free.signal)
    chain(maps)
    assert SEEN[1] is maps.echoes
    chain(maps.total)
    assert isinstance(SEEN[2], Field)


def test_tgv_finds_the_head(scan):
    """From wrapped phase in the true mask. Measured: correlation 0.40; 4 mm are too coarse for it."""
    maps = replace(QUICK, invert=TGV(iterations=150))(replace(scan.echoes, mask=scan.truth.brain))
    assert agreement(maps, scan.truth) > 0.33


def test_sources_are_told_apart_where_asked(scan, whole):
    """Iron of the nuclei is paramagnetic; one echo has no R2* and is refused with what it needs."""
    known = replace(whole, local=scan.truth.local(), r2star_per_s=scan.truth.r2star_per_s)
    maps = replace(QUICK, separate=R2StarSeparation(invert=TKD()))(known)
    assert float(maps.sources.para_ppm.min()) >= 0
    assert float(maps.sources.dia_ppm.max()) <= 0
    assert "separate" in maps.seconds
    deep = (scan.truth.group >= 1) & (scan.truth.group <= 6) & maps.sources.mask
    assert maps.sources.para_ppm[deep].mean() > 1.5 * -maps.sources.dia_ppm[deep].mean()
    assert whole.sources is None
    one = replace(scan.echoes, signal=scan.echoes.signal[1:2], scan=replace(scan.echoes.scan, te_s=TE[1:2]))
    with pytest.raises(ValueError, match="two echoes or more"):
        replace(QUICK, separate=R2StarSeparation(invert=TKD()))(one)


def test_susceptibility_weighting_where_asked(scan, whole):
    """Never brighter than the magnitude it is made from, darker in iron than in white matter."""
    swi = replace(QUICK, swi=SWI())(scan.echoes).swi
    assert whole.swi is None
    share = swi / whole.magnitude.clamp_min(1e-9)
    iron, white = (scan.truth.group == 2) & whole.mask, (scan.truth.group == 8) & whole.mask
    assert float(share[iron].mean()) < float(share[white].mean())


# ---- the default, against the truth


def test_default_finds_the_head(scan):
    """From wrapped phase, mask and all. Measured: correlation 0.58, Dice of the mask 0.98.

    At 4 mm the nuclei are a few voxels, and the map made from the true local field reaches 0.75 only.
    """
    maps = Pipeline()(scan.echoes)
    brain = scan.truth.brain
    both = (maps.mask & brain).sum()
    assert float(2 * both / (maps.mask.sum() + brain.sum())) > 0.95
    assert agreement(maps, scan.truth) > 0.52
    assert not maps.chi.ppm[~maps.chi.mask].any()


def test_default_with_a_given_mask_and_with_true_fields(scan):
    """Measured: 0.66 from phase in the true mask, 0.73 from the true total field, 0.75 from the true local.

    Each stage that the truth takes over brings the map nearer to it.
    """
    truth = scan.truth
    found = [
        agreement(Pipeline()(start), truth)
        for start in (replace(scan.echoes, mask=truth.brain), truth.total(), truth.local())
    ]
    assert found[0] > 0.60
    assert found[1] > 0.68
    assert found[2] > 0.70
    assert found == sorted(found)


def test_conjugate_data_turn_the_map_over(scan):
    """The sign of the phase is carried through, not lost."""
    turned = replace(scan.echoes, signal=scan.echoes.signal.conj(), mask=scan.truth.brain)
    assert agreement(Pipeline()(turned), scan.truth) < -0.60


def test_bipolar_echoes_come_out_as_monopolar_ones(scan):
    """Two radians between odd and even echoes across the readout."""
    truth = scan.truth
    straight, zigzag = (
        Pipeline()(replace(s.echoes, mask=truth.brain)) for s in (scan, scanned(bipolar_rad=2.0))
    )
    mask = straight.total.mask & zigzag.total.mask
    a, b = straight.total.ppm[mask], zigzag.total.ppm[mask]
    assert float((a - a.mean() - b + b.mean()).square().mean().sqrt()) < 0.01
    assert agreement(zigzag, truth) > 0.60


def test_one_echo_is_enough():
    """Without an offset in the phase, for nothing can tell it from field. Measured: correlation 0.49."""
    single = scanned(te_s=(0.006,), offset_rad=0.0)
    maps = Pipeline()(replace(single.echoes, mask=single.truth.brain))
    assert maps.r2star_per_s is None
    assert agreement(maps, single.truth) > 0.43


# ---- starting and stopping


STOPS = {
    "mask": {"magnitude"},
    "unwrap": {"magnitude", "unwrapped_rad"},
    "total": {"magnitude", "unwrapped_rad", "total"},
    "local": {"magnitude", "unwrapped_rad", "total", "local"},
    "chi": {"magnitude", "unwrapped_rad", "total", "local", "chi"},
}


@pytest.mark.parametrize(("until", "made"), STOPS.items(), ids=STOPS)
def test_until_stops_there(scan, until, made):
    """Everything up to the stage is there, and nothing after it was even called."""
    order = ["unwrap", "combine", "background", "invert"]
    last = {"mask": 0, "unwrap": 1, "total": 2, "local": 3, "chi": 4}[until]
    maps = without(*order[last:])(scan.echoes, until)
    names = ("magnitude", "unwrapped_rad", "total", "local", "chi")
    assert {n for n in names if getattr(maps, n) is not None} == made
    assert maps.mask.any()
    assert maps.r2star_per_s is not None


@pytest.mark.parametrize("until", ["total", "local", "chi"])
def test_going_on_from_an_earlier_run_is_the_run(scan, whole, until):
    """What was made is not made again, and the numbers are the same to the bit."""
    part = QUICK(scan.echoes, until)
    done = {"total": (), "local": ("background",), "chi": ("background",)}[until]
    maps = without(*ECHOES_ONLY, *done)(part)
    assert torch.equal(maps.chi.ppm, whole.chi.ppm)
    assert maps.r2star_per_s is part.r2star_per_s
    assert set(maps.seconds) == set(whole.seconds)


@pytest.mark.parametrize("which", ["total", "local"])
def test_a_field_is_a_place_to_start(whole, which):
    field: Field = getattr(whole, which)
    done = ("background",) if which == "local" else ()
    maps = without(*ECHOES_ONLY, *done)(field)
    assert torch.equal(maps.chi.ppm, whole.chi.ppm)
    assert maps.unwrapped_rad is None
    assert (maps.total is None) == (which == "local")


def test_unwrapped_phase_is_believed(scan, whole):
    """Neither offsets are removed nor wraps looked for."""
    maps = without("offsets", "unwrap", "mask")(
        replace(scan.echoes, mask=whole.mask, unwrapped_rad=whole.unwrapped_rad)
    )
    assert torch.equal(maps.unwrapped_rad, whole.unwrapped_rad)
    assert agreement(maps, scan.truth) == pytest.approx(agreement(whole, scan.truth), abs=0.03)


def test_the_users_mask_is_used(scan):
    """No other is looked for, and nothing lies outside it."""
    mask = scan.truth.brain.clone()
    mask[:, :20] = False
    maps = without("mask")(replace(scan.echoes, mask=mask))
    for m in (maps.mask, maps.total.mask, maps.local.mask, maps.chi.mask):
        assert not (m & ~mask).any()
    assert torch.equal(maps.mask, mask)
    assert not maps.chi.ppm[~mask].any()


def test_data_come_back_untouched(scan):
    """The caller's echoes are not written to, and the same run gives the same bytes."""
    before = scan.echoes.signal.clone()
    one, two = QUICK(scan.echoes), QUICK(scan.echoes)
    assert torch.equal(scan.echoes.signal, before)
    assert torch.equal(one.chi.ppm, two.chi.ppm)
    assert torch.equal(one.r2star_per_s, two.r2star_per_s)


# ---- what it tells


def test_every_stage_is_timed(whole):
    stages = {"mask", "offsets", "r2star", "unwrap", "combine", "background", "invert", "reference"}
    assert set(whole.seconds) == stages
    assert all(0 <= s < 60 for s in whole.seconds.values())


def test_warnings_are_told_once_and_in_words(scan):
    """They are collected, in order and each once, and do not reach the console; an earlier run's stay."""
    maps = replace(QUICK, mask=Muttering())(scan.echoes, "mask")
    assert maps.warnings == ("the coil is cold", "mind the gap")
    total = replace(QUICK, mask=Muttering())(scan.echoes, "total")
    assert QUICK(total).warnings == ("the coil is cold", "mind the gap")


def test_reference_gets_r2star_and_has_its_say(scan, whole):
    """The map's mean is zero; without a reference it is what the inversion made."""
    assert float(whole.chi.ppm[whole.chi.mask].double().mean()) == pytest.approx(0, abs=1e-6)
    assert whole.chi.reference == "mask mean"
    seen = []

    @dataclass(frozen=True)
    class Looking(MaskMean):
        def __call__(self, chi: Chi, r2star_per_s=None) -> Chi:
            seen.append(r2star_per_s)
            return chi

    bare: Maps = replace(QUICK, reference=Looking())(whole)
    assert seen[0] is whole.r2star_per_s
    assert bare.chi.reference == "none"
    plain = replace(QUICK, reference=NoReference())(whole)
    assert torch.equal(bare.chi.ppm, plain.chi.ppm)


def test_no_r2star_where_none_is_wanted(scan):
    assert replace(QUICK, r2star=None)(scan.echoes, "mask").r2star_per_s is None
