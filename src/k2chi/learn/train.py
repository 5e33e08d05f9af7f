"""The training loop: one screen, no framework. Stops and goes on exactly where it was.

The data of an update follow from the recipe's seed and the update's number, so nothing random is kept.
With `torchrun` each process takes its own batches and gradients are averaged.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import cos, inf, pi
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor, nn

from k2chi.learn.batch import Batch
from k2chi.learn.checkpoint import Checkpoint, load, newest, save
from k2chi.learn.losses import LOSSES
from k2chi.learn.recipes import Recipe
from k2chi.learn.show import Curves, example, held_back_error

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """How one call of `train` goes on; nothing here changes what is learned."""

    folder: Path
    minutes: float = 60.0
    """Stop and save after this time [min]."""
    device: str = "cpu"
    resume: bool = False
    """Go on from the folder's checkpoint; otherwise the folder must have none."""
    save_every: int = 500
    """Updates between checkpoints."""
    look_every: int = 200
    """Updates between looks at held-back data."""


def train(recipe: Recipe, run: Run, tell: Tell = lambda words: None) -> Checkpoint:
    """Learn until the recipe's steps are done or the minutes are over; returns what was saved last."""
    rank, world = _join(run.device)
    device = torch.device(run.device)
    if run.device == "cuda":
        device = torch.device(f"cuda:{rank % torch.cuda.device_count()}")
        torch.cuda.set_device(device)
    state = _begin(recipe, run)
    recipe = state.recipe
    network = recipe.network.build()
    network.load_state_dict(state.weights)
    network.to(device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    average = {k: v.clone().to(device) for k, v in state.average.items()}
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.decay
    )
    state.into(optimiser, network)
    curves = Curves(run.folder, state.step) if rank == 0 else None
    start, before = perf_counter(), state.seconds

    def now(step: int) -> Checkpoint:
        seconds = before + perf_counter() - start
        return Checkpoint.of(recipe, step, seconds, network, average, optimiser, run.device)

    step = state.step
    while step < recipe.steps and not _over(perf_counter() - start >= 60 * run.minutes, device, world):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * pace(step, recipe)
        loss = _gradients(recipe, network, device, step, rank, world)
        size = nn.utils.clip_grad_norm_(network.parameters(), recipe.clip or inf)
        if size.isfinite():
            optimiser.step()
        else:
            tell(f"step {step}: gradients are not finite, this update is left out")
        optimiser.zero_grad(set_to_none=True)
        step += 1
        _follow(average, network, min(recipe.average, step / (step + 10)))
        if curves is not None:
            curves.note(step, loss, optimiser.param_groups[0]["lr"], before + perf_counter() - start)
            if step % run.look_every == 0 or step == recipe.steps:
                error = held_back_error(recipe, average, device)
                curves.look(step, error)
                example(recipe, average, device, run.folder / f"step-{step:06d}.png")
                tell(f"step {step}: loss {loss:.4f}, held-back error {error:.1f} %")
            if step % run.save_every == 0:
                save(now(step), run.folder)
    final = now(step)
    if rank == 0:
        save(final, run.folder)
        tell(f"stopped at step {step} of {recipe.steps} after {final.seconds / 60:.1f} min in all")
    if world > 1:
        dist.destroy_process_group()
    return final


def pace(step: int, recipe: Recipe) -> float:
    """Learning rate over its highest: up in a line, then half a cosine down to a hundredth."""
    if not recipe.warmup:
        return 1.0
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + cos(pi * min(done, 1.0)))


def _begin(recipe: Recipe, run: Run) -> Checkpoint:
    found = newest(run.folder)
    if run.resume:
        if found is None:
            raise ValueError(f"{run.folder} holds no checkpoint to go on from: leave out --resume")
        state = load(found)
        if state.recipe.network != recipe.network:
            raise ValueError(f"{found} was made for {state.recipe.network}: give it another folder")
        # data, loss and seed stay those of the checkpoint; how long to go on may change
        return replace(state, recipe=replace(state.recipe, steps=recipe.steps))
    if found is not None:
        raise ValueError(f"{run.folder} holds a checkpoint: give --resume to go on, or another folder")
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = recipe.network.build()
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    return Checkpoint(recipe, 0, 0.0, run.device, weights, {k: v.clone() for k, v in weights.items()}, {})


def _gradients(
    recipe: Recipe, network: nn.Module, device: torch.device, step: int, rank: int, world: int
) -> float:
    """Mean loss of the update's batches; its gradients are left in the parameters."""
    total = 0.0
    for part in range(recipe.accumulate):
        number = (step * recipe.accumulate + part) * world + rank
        batch = stretched(recipe.data(recipe.seed * 2**40 + number, device), recipe.stretch, number)
        half = (
            torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bfloat16" else nullcontext()
        )
        with half:
            answer = network.invert(batch.given())  # type: ignore[operator]
        loss: Tensor = LOSSES[recipe.loss](answer, batch) / recipe.accumulate
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    if world > 1:
        for p in network.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= world
    return total


def stretched(batch: Batch, most: float, number: int) -> Batch:
    """The batch times one random factor between 1 and `most`, of either sign."""
    if most == 1:
        return batch
    draw = torch.Generator().manual_seed(number)
    factor = most ** float(torch.rand(1, generator=draw))
    factor *= 1 if torch.rand(1, generator=draw) < 0.5 else -1
    return replace(batch, chi=batch.chi * factor, field=batch.field * factor, local=batch.local * factor)


def _follow(average: dict[str, Tensor], network: nn.Module, memory: float) -> None:
    for name, now in network.state_dict().items():
        if now.is_floating_point():
            average[name].lerp_(now, 1 - memory)
        else:
            average[name].copy_(now)


def _over(late: bool, device: torch.device, world: int) -> bool:
    """Whether time is over for any process: all stop after the same update, or some would wait for ever."""
    if world == 1:
        return late
    any_late = torch.tensor(float(late), device=device)
    dist.all_reduce(any_late, dist.ReduceOp.MAX)
    return bool(any_late)


def _join(device: str) -> tuple[int, int]:
    """This process's number and how many there are; one unless `torchrun` started us."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), world
