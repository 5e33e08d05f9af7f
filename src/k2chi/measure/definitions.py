"""What each quality measure is, in one line: a the map, t the truth. Light: help pages show it."""

AGAINST_TRUTH = {
    "nrmse": "100 ‖a − t‖ / ‖t‖ in the mask, both demeaned [%]",
    "nrmse_detrend": "the same after dividing a by its slope on t: 100 √(1/ρ² − 1) [%]",
    "correlation": "Pearson's ρ in the mask",
    "rmse_percent": "100 ‖a − t‖ / ‖t‖ with means kept, as in the 2016 challenge [%]",
    "rmse_ppb": "root mean square difference, both demeaned [ppb]",
    "mae_ppb": "mean absolute difference, both demeaned [ppb]",
    "xsim": "structural similarity for χ: range 1 ppm, K (0.01, 0.001), Gaussian σ 1.5 in 7³, both demeaned",
    "xsim_uniform": "the same with a flat 5³ window and means kept, as the public leaderboard has it",
    "ssim": "structural similarity in 3D: range of t, K (0.01, 0.03), Gaussian σ 1.5 in 11³, both demeaned",
    "ssim_challenge": "the same as in 2016: least of both made 0, range of both, σ 1.5 in 5³, means kept",
    "psnr_db": "20 log₁₀(range of t / rms difference), both demeaned [dB]",
    "range_ppm": "largest minus smallest t in the mask: the range of ssim and psnr_db [ppm]",
    "hfen": "100 ‖L(a − t)‖ / ‖L t‖, L a Laplacian of a Gaussian, σ 1.5 voxels, maps masked first [%]",
    "nmi": "normalised mutual information, 64 bins; 1 unrelated, 2 one follows from the other",
    "coverage": "share of the mask where a is not zero",
    "nrmse_tissue": "detrended error in thalamus, white and grey matter (labels 7, 8, 9) [%]",
    "nrmse_tissue_eroded": "the same one voxel further in [%]",
    "nrmse_blood": "detrended error in veins and one voxel around them, within the mask (label 11) [%]",
    "nrmse_dgm": "detrended error in the deep nuclei (labels 1 to 6) [%]",
    "nrmse_dgm_eroded": "the same one voxel further in [%]",
    "dgm_slope": "slope of a's means of the six deep nuclei on those of t; 1 is right",
    "dgm_deviation": "|1 − dgm_slope|",
    "calc_deviation": "|moment of the calcification found in a − true sum of χ in label 16| [ppm mm³]",
    "calc_streak": "rms around the calcification left by a line of a on t, over the mean χ found in it",
}
"""Measures against a truth."""

OF_ONE_MAP = {
    "noise_ppb": "white noise of the map, from third differences; no truth needed [ppb]",
    "streak_index": "power where the dipole is blind (|D| < 0.1) over that beside it (0.1 to 0.25)",
    "sharpness_ppb_per_mm": "mean length of the map's gradient in the mask [ppb/mm]",
}
"""Measures of a map alone."""

OF_BOTH = {"sharpness_ratio": "sharpness of the map over that of the truth; blur lowers it, noise raises it"}
"""Measures of a map alone, beside those of the truth."""

DEFINITIONS = AGAINST_TRUTH | OF_ONE_MAP | OF_BOTH
"""One line for each measure."""
