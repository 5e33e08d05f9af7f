"""Pages that are made from the source when the site is built: methods, examples, API, benchmarks."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import k2chi
from k2chi.about import about, choices, stages
from k2chi.config import dumps as as_toml
from k2chi.config import members, recipe, shipped
from k2chi.pipeline import Pipeline

STAGES = {
    "recon": ("Raw data", "readouts or k-space become one complex image for each echo, by the steps below"),
    "recon.assemble": ("Readouts to k-space", "every readout is put in its place"),
    "recon.assemble.ramp": ("Sampling on ramps", "unevenly spaced samples become images along the readout"),
    "recon.assemble.ghost": ("EPI ghost", "readouts of both directions are brought onto each other"),
    "recon.assemble.shots": ("Phase of shots", "what motion and drift turn each shot by is taken off"),
    "recon.assemble.averages": (
        "Phase of averages",
        "averages are turned onto each other before they add up",
    ),
    "recon.compression": ("Coil compression", "many coils become a few virtual ones"),
    "recon.maps": ("Coil sensitivities", "how each coil sees each place is found"),
    "recon.partial": ("Partial Fourier", "what stands in for the part of k-space that was left out"),
    "recon.window": ("Window", "k-space is faded out towards its border, if asked for"),
    "recon.interpolate": ("Interpolation", "images are shown on a finer grid, if asked for"),
    "recon.unfold": ("Unfolding", "k-space and sensitivities become images"),
    "coils": ("Coil combination", "the images of all coils become one for each echo"),
    "offsets": ("Phase offset", "what coils and radio pulse added to the phase is removed"),
    "mask": ("Mask", "the brain is found, unless the scan brings a mask"),
    "unwrap": ("Unwrapping", "the phase becomes continuous"),
    "combine": ("Echo combination", "all echoes become one field map with its noise"),
    "r2star": ("R2*", "how fast the signal decays"),
    "background": ("Background field", "the field of sources outside the brain is removed"),
    "invert": ("Inversion", "the local field, or the total field at once, becomes susceptibility"),
    "reference": ("Reference", "the zero of the map is set"),
    "separate": ("Para- and diamagnetic sources", "both kinds of source are told apart, if asked for"),
    "swi": ("Susceptibility weighting", "veins are darkened in the magnitude, if asked for"),
}


def write(here: Path, root: Path) -> None:
    """Write every generated page into `here`; a page is touched only if it changed."""
    made = {
        "methods.md": methods_page(),
        "recipes.md": recipes_page(),
        "benchmarks.md": benchmarks_page(root),
        "log.md": (root / "LOG.md").read_text(encoding="utf-8"),
        "contributing.md": (root / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    examples = sorted((root / "examples").glob("*.py"))
    for script in examples:
        made[f"examples/{script.stem}.md"] = example_page(script)
    made["examples/index.md"] = examples_index(examples)
    made |= api_pages()
    for name, text in made.items():
        page = here / "made" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
    for old in (here / "made").rglob("*.md"):
        if str(old.relative_to(here / "made")) not in made:
            old.unlink()


def cell(text: object) -> str:
    """Text that stands in one cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("_", "\\_")


def paragraphs(text: str) -> str:
    """A docstring as Markdown: plain text but for `code`."""
    parts = re.split(r"(`[^`\n]+`)", inspect.cleandoc(text))
    plain = (p if p.startswith("`") else re.sub(r"([*|_<>\[\]\\])", r"\\\1", p) for p in parts)
    linked = re.sub(r"doi:\s?(10\.[^\s,;]*[^\s,;.)])", r"[doi:\1](https://doi.org/\1)", "".join(plain))
    return linked


def methods_page() -> str:
    """Every method of every stage, with its source and settings."""
    out = [
        "# Methods",
        "",
        "Every stage of the pipeline is a choice. Each method below is a frozen dataclass: its",
    ]
    out += [
        "fields are the settings, and calling it runs it. `k2chi methods` prints the same, `--json` for",
        "programs.",
        "",
    ]
    for stage, hint in stages(Pipeline):
        if not choices(hint):
            continue
        title, what = STAGES.get(stage, (stage, ""))
        out += [f"## {title}", "", f"`{stage}`: {what}.", ""]
        for method in members(hint):
            if method is type(None):
                out += ['`"none"` leaves the stage out.', ""]
                continue
            told = about(method, stage)
            out += [f"### {told.name}", "", paragraphs(method.__doc__ or ""), ""]
            if told.settings:
                out += ["| setting | default | |", "|---|---|---|"]
                out += [f"| `{s.name}` | `{s.default}` | {cell(s.help)} |" for s in told.settings]
                out += [""]
    return "\n".join(out)


def recipes_page() -> str:
    """The shipped recipes, with every setting."""
    out = [
        "# Recipes",
        "",
        "A recipe is a pipeline in TOML. These are shipped; write your own from any of them, or",
        "",
    ]
    out[-2] += " change single settings with `--set`."
    for name in shipped():
        out += [f"## {name}", "", "```toml", as_toml(recipe(name, Pipeline)).strip(), "```", ""]
    return "\n".join(out)


def benchmarks_page(root: Path) -> str:
    """bench/RESULTS.md as it is, with pictures found from here."""
    results = root / "bench" / "RESULTS.md"
    if not results.exists():
        return "# Benchmarks\n\nRun `make bench`.\n"
    return results.read_text(encoding="utf-8").replace("](../docs/images/", "](../images/")


def example_page(script: Path) -> str:
    """A percent script as a page: `# %% [markdown]` cells are text, the others code."""
    out: list[str] = []
    for block in re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, _, body = block.partition("\n")
        if "[markdown]" in head:
            out += ["\n".join(re.sub(r"^# ?", "", line) for line in body.strip().splitlines()), ""]
        elif body.strip():
            out += ["```python", body.strip(), "```", ""]
    return "\n".join(out)


def examples_index(scripts: list[Path]) -> str:
    """Contents of the examples."""
    names = "\n".join(s.stem for s in scripts)
    return (
        "# Examples\n\nScripts that run as they stand (`make examples`), and check what they claim.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    )


def api_pages() -> dict[str, str]:
    """One page a room, with all public modules in it."""
    rooms: dict[str, list[str]] = {}
    for info in pkgutil.walk_packages(k2chi.__path__, "k2chi."):
        parts = info.name.split(".")
        if any(p.startswith("_") for p in parts) or parts[1] == "app":
            continue
        rooms.setdefault(parts[1], []).append(info.name)
    pages = {}
    for room, modules in rooms.items():
        lines = [f"# k2chi.{room}", ""]
        for name in modules:
            module = importlib.import_module(name)
            own = [v for v in vars(module).values() if getattr(v, "__module__", None) == name]
            if not own and len(modules) > 1:
                continue
            if name != f"k2chi.{room}":
                lines += [f"## {name}", ""]
            lines += ["```{eval-rst}", f".. automodule:: {name}", "```", ""]
        pages[f"api/{room}.md"] = "\n".join(lines)
    order = "\n".join(sorted(rooms, key=list(rooms).index))
    pages["api/index.md"] = (
        "# Reference\n\nEvery public name, from its docstring.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{order}\n```\n"
    )
    return pages
