"""An atlas brought to χ's grid: template to magnitude or T1, labels to χ; χ stays where it is."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from k2chi.app import figures, overlay
from k2chi.app.register import one, scene_of
from k2chi.io.atlas import Atlas, find
from k2chi.io.echoes import read_mask
from k2chi.io.nifti import Volume, same_place, write, write_text
from k2chi.io.register import Registered, Rigid, Scene, SyN, register
from k2chi.measure.space import Transform, brought, carried, inverse


@dataclass(frozen=True)
class Brought:
    """Files of the labels on χ's grid, and what there is to say."""

    labels: Path
    share: Path
    table: Path
    said: tuple[str, ...]


def bring(
    name: str,
    chi: Path,
    magnitude: Path,
    t1: Path | None,
    mask: Path | None,
    hybrid: bool | None,
    out: Path,
    threads: int,
) -> Brought:
    """Register the atlas, write labels, shares, names, transform and overlay beside `out`.

    χ drives the warp too if the atlas has a map of it, unless `hybrid` says otherwise.
    """
    atlas = find(name)
    hybrid = atlas.chi is not None if hybrid is None else hybrid
    native, image = one(chi), one(magnitude)
    same_place(native, image)
    values = native.tensor()[0].nan_to_num()
    inside = read_mask(mask, native) if mask else values != 0
    subject = Scene(image.tensor()[0].nan_to_num(), image.grid, inside, values if hybrid else None)
    template = template_of(atlas, hybrid)
    stem = out.with_suffix("")
    judged = []
    said = [] if t1 is None else ["the warp follows the T1, which is laid on the magnitude rigidly"]
    if t1 is None:
        found, alike = to_magnitude(atlas, template, subject, stem, threads)
        said += alike
        transform = found.transform
    else:
        to_t1, found = through_t1(template, subject, one(t1), stem, threads)
        transform = to_t1.transform.then(found.transform)
        said += to_t1.warnings
        judged = [to_t1.quality]
    said += found.warnings
    worse = max([*judged, found.quality], key=lambda q: q.worst_mm if q.told else 0)
    given = one(atlas.labels)
    moved = carried(given.tensor()[0].nan_to_num(), given.grid, native.grid, transform)
    if moved.lost:
        gone = ", ".join(atlas.names.get(n, str(n)) for n in moved.lost)
        said.append(f"labels that have no voxel on χ's grid: {gone}")
    labels = write(stem.with_name(stem.name + "_dseg.nii.gz"), moved.labels, native.grid, native.codes)
    share = write(stem.with_name(stem.name + "_share.nii.gz"), moved.share, native.grid, native.codes)
    rows = [f"{n}\t{words}" for n, words in sorted(atlas.names.items())]
    table = write_text(stem.with_name(stem.name + "_dseg.tsv"), "index\tname\n" + "\n".join(rows) + "\n")
    facts = {
        "Atlas": atlas.name,
        "Licence": atlas.licence,
        "Citation": atlas.citation,
        "Lost": list(moved.lost),
        "WarpFollows": "image and χ" if hybrid else "image",
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    write_text(stem.with_name(stem.name + "_dseg.json"), text)
    laid = brought(template.image, template.grid, native.grid, transform)
    title = f"edges of the template of {atlas.name} on {magnitude.name}"
    picture = overlay.registration(subject.image, laid, inside, native.grid, title, worse)
    figures.save(picture, stem.with_name(stem.name + "_overlay.png"))
    return Brought(labels, share, table, tuple(said))


def template_of(atlas: Atlas, hybrid: bool) -> Scene:
    """The atlas's template with its brain mask."""
    volume = one(atlas.template)
    second = one(atlas.chi) if hybrid and atlas.chi else None
    if hybrid and second is None:
        raise ValueError(f"{atlas.name} has no map of χ for --hybrid; name one as chi in its atlas.json")
    scene = scene_of(volume, atlas.mask, second)
    return scene if scene.mask is not None else replace(scene, mask=scene.image > 0)


def to_magnitude(
    atlas: Atlas, template: Scene, subject: Scene, stem: Path, threads: int
) -> tuple[Registered, list[str]]:
    """Template straight to magnitude: by local correlation only if both show the same contrast."""
    same = atlas.contrast.lower() in ("magnitude", "gre", "t2starw", "")
    said = []
    if not same:
        said.append(
            f"the template of {atlas.name} shows {atlas.contrast}, the subject a magnitude: the warp "
            "follows mutual information and leaves most of the difference in shape; give --t1, or a template "
            "of the same contrast"
        )
    how = SyN("correlation" if same else "information", threads=threads)
    return register(how, template, subject, stem), said


def through_t1(
    template: Scene, subject: Scene, t1: Volume, stem: Path, threads: int
) -> tuple[Registered, Registered]:
    """T1 rigidly to the magnitude, template to T1 by local correlation."""
    image = t1.tensor()[0].nan_to_num()
    to_mag = register(
        Rigid(threads=threads), Scene(image, t1.grid), subject, stem.with_name(stem.name + "_t1")
    )
    back = Transform((inverse(to_mag.transform.matrix),))
    mask = subject.mask
    assert mask is not None
    brain = brought(mask.float(), subject.grid, t1.grid, back) > 0.5
    chi = None if subject.second is None else brought(subject.second, subject.grid, t1.grid, back)
    return to_mag, register(SyN(threads=threads), template, Scene(image, t1.grid, brain, chi), stem)
