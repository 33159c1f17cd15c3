from __future__ import annotations

import os

import pytest

from keras_robust.core.atomic_files import write_text
from keras_robust.experiments.runs.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path, tiny):
    run = RunDirectory(tmp_path / "run")
    run.write_recipe(tiny(), ("zero", "one"))
    return run


def test_a_new_directory_may_be_missing_or_empty(tmp_path):
    RunDirectory(tmp_path / "a" / "b").check_new()
    RunDirectory(tmp_path).check_new()
    assert not (tmp_path / "a").exists()


def test_an_existing_run_is_not_deleted(run):
    with pytest.raises(
        FileExistsError, match=r"already contains a run\. Pass --resume.*--overwrite"
    ):
        run.check_new()
    run.check_new(overwrite=True)


def test_other_files_are_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="contains other files than a run"):
            RunDirectory(tmp_path).check_new(overwrite)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="file is a file"):
            RunDirectory(path).check_new()


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="no permission in"):
        RunDirectory(tmp_path / "run").check_new()


def test_what_a_killed_program_left_half_written_is_no_obstacle(tmp_path):
    run = RunDirectory(tmp_path)
    drafts = [tmp_path / ".recipe.12.json", run.checkpoint_file("last").with_name(".last.7.keras")]
    write_text(drafts[0], "{")
    run.check_new()
    write_text(drafts[1], "half of")
    (tmp_path / ".detector.json-x_4y").mkdir()
    (tmp_path / ".hidden.json").touch()
    run.remove_drafts()
    assert {path.name for path in tmp_path.iterdir()} == {".hidden.json", "checkpoints"}
    assert not list((tmp_path / "checkpoints").iterdir())


def test_clearing_ends_with_the_recipe(run, monkeypatch):
    """A run that is cleared halfway is still one, which can be cleared once more."""
    removed = []
    monkeypatch.setattr(type(run.path), "unlink", lambda path, **_: removed.append(path.name))
    run.clear()
    assert removed[-1] == "recipe.json"


def test_one_of_several_workers_writes(run):
    run.write_rows([{"epoch": 1}])
    RunDirectory(run.path, writes=False).write_rows([])
    assert run.rows() == [{"epoch": 1}]


def test_clearing_removes_the_run_and_nothing_else(run):
    run.write_rows([{"epoch": 1}])
    run.tensorboard.mkdir()
    (run.path / "notes.txt").touch()
    (run.path / "attacks").mkdir()
    run.clear()
    assert {path.name for path in run.path.iterdir()} == {"notes.txt", "attacks"}


@pytest.mark.parametrize("name", ["detector.json", "report", "checkpoints/best.keras"])
def test_links_that_lead_out_are_not_followed(name, run, tmp_path):
    """A run of somebody else's would read and write other files of its user."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.path / "checkpoints").mkdir()
    (run.path / "notes").symlink_to(outside)  # not of the run
    run.recipe()
    (run.path / name).symlink_to(outside)
    with pytest.raises(ValueError, match=f"{name} is a link to .*outside, outside"):
        run.recipe()
    run.clear()
    assert outside.is_dir() and {path.name for path in run.path.iterdir()} == {"notes"}


def test_a_recipe_comes_back(run, tiny):
    assert run.recipe().to_dict() == tiny().to_dict()
    assert run.class_names() == ("zero", "one")


def test_no_run(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"recipe.json does not exist, so .* is not a run directory; train one with `python -m",
    ):
        RunDirectory(tmp_path).recipe()
    with pytest.raises(FileNotFoundError, match=r"run directory .*nowhere does not exist; train"):
        RunDirectory(tmp_path / "nowhere").recipe()


def test_metrics_as_csv_and_json(run):
    assert run.rows() == []
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    run.write_rows(rows)
    assert run.rows() == rows
    assert (run.path / "metrics.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


def test_the_best_checkpoint_before_the_last(run):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint best or last \(the run has none\); .*--resume"
    ):
        run.checkpoint()
    write_text(run.checkpoint_file("last"), "")
    assert run.checkpoint().stem == "last"
    with pytest.raises(FileNotFoundError, match=r"no checkpoint best \(--checkpoint=last is there"):
        run.checkpoint("best")
    write_text(run.checkpoint_file("best"), "")
    assert run.checkpoint().stem == "best"
    assert run.checkpoint("last").stem == "last"
