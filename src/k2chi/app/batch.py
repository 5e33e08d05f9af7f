"""All scans of a data set: plan, skip what is done, work, and say what failed."""

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from k2chi.app.console import prepare, sentence
from k2chi.app.run import Order, fingerprint, run, sha256
from k2chi.data import Vector
from k2chi.io import bids
from k2chi.io.derivatives import Layout, describe_derivatives


@dataclass(frozen=True)
class Job:
    """One scan of a data set."""

    series: bids.Series
    layout: Layout
    find_mask: bool
    b0_world: Vector


@dataclass(frozen=True)
class Outcome:
    """How one scan ended."""

    name: str
    state: str
    """done, skipped or failed."""
    words: str


def plan(
    source: Path,
    out: Path,
    participants: Sequence[str],
    sessions: Sequence[str],
    find_mask: bool,
    b0_world: Vector,
) -> list[Job]:
    """The scans to work on. Raises ValueError if there is none."""
    found = bids.find(source, participants, sessions)
    return [Job(s, Layout(out, s.name, s.folder), find_mask, b0_world) for s in found]


def finished(job: Job, order: Order) -> bool:
    """True if this scan was done with the same recipe from the same files."""
    path = job.layout.out / job.layout.note("run.json")
    if order.overwrite or not path.exists():
        return False
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same = record["recipe_sha256"] == fingerprint(order)
        asked = (record["until"], record["sign"]["asked"]) == (order.until, order.sign)
        return same and asked and all(sha256(Path(f)) == sha for f, sha in record["inputs"].items())
    except (OSError, ValueError, KeyError):
        return False


def one(job: Job, order: Order) -> Outcome:
    """Work on one scan; an error becomes its outcome."""
    name = job.layout.name or str(job.series.root)
    try:
        if finished(job, order):
            return Outcome(name, "skipped", "finished before with this recipe")
        load = partial(bids.load, job.series, find_mask=job.find_mask, b0_world=job.b0_world)
        # what lies there belongs to another recipe or other input: it is replaced
        result = run(load, job.layout, replace(order, overwrite=True), job.series.root)
    except (ValueError, OSError, MemoryError) as error:
        return Outcome(name, "failed", sentence(error))
    except Exception as error:  # a fault of ours must not stop the other subjects
        return Outcome(name, "failed", f"unexpected {type(error).__name__}: {sentence(error)}")
    return Outcome(name, "done", result.record["sign"]["words"])


def _child(
    job: Job, order: Order, threads: int | None, pipe: "multiprocessing.connection.Connection"
) -> None:
    prepare(threads, order.device)
    pipe.send(one(job, order))


def _apart(job: Job, order: Order, threads: int | None) -> Outcome:
    """Work in a process of its own, so that one that dies takes no other along."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, order, threads, theirs))
    process.start()
    theirs.close()
    try:
        outcome: Outcome = ours.recv()
    except EOFError:
        process.join()
        outcome = Outcome(
            job.layout.name, "failed", f"its process ended with code {process.exitcode} (memory?)"
        )
    process.join()
    return outcome


def work(
    jobs: Sequence[Job], order: Order, n_procs: int, threads: int | None, tell: Callable[[str], None] | None
) -> list[Outcome]:
    """Do all jobs, `n_procs` at a time; outcomes in the order of the jobs."""
    describe_derivatives(jobs[0].layout.out, jobs[0].series.root)

    def say(outcome: Outcome) -> Outcome:
        if tell is not None:
            tell(f"{outcome.state}: {outcome.name}: {outcome.words}")
        return outcome

    if n_procs <= 1:
        return [say(one(job, order)) for job in jobs]
    with ThreadPoolExecutor(n_procs) as pool:
        return list(pool.map(lambda job: say(_apart(job, order, threads)), jobs))
