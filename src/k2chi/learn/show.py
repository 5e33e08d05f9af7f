"""How a run is watched: curves as CSV, the error on held-back data, example slices as PNG."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from k2chi.learn.anatomy import demeaned
from k2chi.learn.batch import Batch
from k2chi.learn.png import save_png
from k2chi.learn.recipes import Recipe
from k2chi.nets import Answer

HELD_BACK = 2**41
"""Numbers of batches that no run with a small seed reaches."""
BATCHES = 4


class Curves:
    """`curves.csv`: step, loss, learning rate, seconds; `held-back.csv`: step, error [%]."""

    def __init__(self, folder: Path, step: int) -> None:
        self.losses, self.errors = folder / "curves.csv", folder / "held-back.csv"
        for path, head in (
            (self.losses, "step,loss,learning_rate,seconds"),
            (self.errors, "step,nrmse_percent"),
        ):
            kept = [head]
            if step and path.is_file():  # lines after the checkpoint will be made again
                lines = path.read_text(encoding="utf-8").splitlines()[1:]
                kept += [line for line in lines if int(line.split(",")[0]) <= step]
            path.write_text("\n".join(kept) + "\n", encoding="utf-8")

    def note(self, step: int, loss: float, rate: float, seconds: float) -> None:
        """One line for an update."""
        with self.losses.open("a", encoding="utf-8") as file:
            file.write(f"{step},{loss:.6g},{rate:.4g},{seconds:.1f}\n")

    def look(self, step: int, error: float) -> None:
        """One line for a look at held-back data."""
        with self.errors.open("a", encoding="utf-8") as file:
            file.write(f"{step},{error:.3f}\n")


def answer_of(recipe: Recipe, weights: Mapping[str, Tensor], batch: Batch) -> Answer:
    """What a network of these weights says of a batch."""
    network = recipe.network.build()
    network.load_state_dict(weights)
    network.to(batch.chi.device).eval()
    with torch.inference_mode():
        return network.invert(batch.given())


def error_percent(answer: Answer, batch: Batch) -> float:
    """Mean over cubes of 100 ‖error‖ / ‖χ‖ in the support, both of mean zero."""
    e = demeaned(answer.chi - batch.chi, batch.support).flatten(1).norm(dim=1)
    return float(100 * (e / demeaned(batch.chi, batch.support).flatten(1).norm(dim=1)).mean())


def held_back_error(recipe: Recipe, weights: Mapping[str, Tensor], device: torch.device) -> float:
    """Error on data that are not learned from [%]."""
    batches = [recipe.data(HELD_BACK + i, device) for i in range(BATCHES)]
    return sum(error_percent(answer_of(recipe, weights, b), b) for b in batches) / BATCHES


def example(recipe: Recipe, weights: Mapping[str, Tensor], device: torch.device, path: Path) -> None:
    """Middle slices of one held-back batch: field, χ found and χ true, one row a cube."""
    data = recipe.data
    batch = replace(data, batch=min(data.batch, 4))(HELD_BACK + BATCHES, device)
    found = demeaned(answer_of(recipe, weights, batch).chi, batch.support)
    middle = batch.chi.shape[-1] // 2
    rows = []
    for i in range(len(batch.chi)):
        size = float(batch.chi[i].abs().max().clamp_min(1e-9))
        row = [batch.field[i, ..., middle], found[i, ..., middle], batch.chi[i, ..., middle]]
        rows.append(torch.cat([x / size for x in row], 1))
    save_png(path, torch.cat(rows, 0), -0.5, 0.5)
