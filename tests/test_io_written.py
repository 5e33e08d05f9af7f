"""Files of an earlier run go; files of anybody else stay."""

import json

from k2chi.io.written import note, renewed


def make(folder, **texts):
    out = []
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        path.write_text(text, encoding="utf-8")
        out.append(path)
    return out


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_only_what_the_tool_wrote_and_nobody_changed_is_removed(tmp_path):
    record = tmp_path / "run.json"
    make(tmp_path, stranger="mine")
    renewed(record, make(tmp_path, both="1", old="2", edited="3"))
    make(tmp_path, edited="my own words")
    renewed(record, make(tmp_path, both="4", new="5"))
    assert names(tmp_path) == {"run.json", "stranger.txt", "both.txt", "new.txt", "edited.txt"}
    assert (tmp_path / "both.txt").read_text() == "4"
    renewed(record, make(tmp_path, new="5"))
    assert names(tmp_path) == {"run.json", "stranger.txt", "new.txt", "edited.txt"}


def test_a_record_cannot_reach_outside_its_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (outside,) = make(tmp_path, outside="1")
    record = note(inner / "run.json", make(inner, a="1"))
    said = json.loads(record.read_text())
    (sum_of,) = said["FilesOfThisRun"].values()
    said["FilesOfThisRun"] |= {"../outside.txt": sum_of, str(outside): sum_of}
    record.write_text(json.dumps(said))
    renewed(record, [])
    assert outside.exists()
    assert names(inner) == {"run.json"}


def test_a_record_that_is_none_removes_nothing(tmp_path):
    kept = make(tmp_path, a="1", b="2")
    record = tmp_path / "run.json"
    for text in (
        "{",
        "[1]",
        '{"FilesOfThisRun": {"a.txt": "x"}}',
        '{"GeneratedBy": "k2chi", "FilesOfThisRun": 3}',
    ):
        record.write_text(text)
        renewed(record, [])
        assert all(p.exists() for p in kept)
