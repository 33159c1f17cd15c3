from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import keras_robust as kr
from keras_robust.experiments.measuring import attack_run
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import attack


def parsed(*arguments):
    values = flags.FlagValues()
    attack.define_flags(values)
    values(["program", *arguments])
    return values


def test_images_are_kept_as_arrays_and_as_pictures(trained, loaded, tmp_path):
    values = parsed(
        f"--run={trained}", f"--output_dir={tmp_path}", "--limit=20", "--pictures=2", "--steps=3"
    )
    done, directory = attack.run(values)
    assert directory == tmp_path
    assert list(done) == ["pgd"]
    arrays = np.load(tmp_path / "adversarial.npz")
    assert set(arrays.files) == {
        "images",
        "labels",
        "adversarial",
        "clean_predictions",
        "predictions",
    }
    x, y = loaded.test_images(20)
    np.testing.assert_array_equal(arrays["images"], x)
    np.testing.assert_array_equal(arrays["labels"], y)
    assert np.abs(arrays["adversarial"] - arrays["images"]).max() <= 0.15 + 1e-6
    predicted = loaded.model(arrays["adversarial"])["logits"].numpy().argmax(1)
    np.testing.assert_array_equal(arrays["predictions"], predicted)
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    pixels = tf.io.decode_png(pictures[1].read_bytes()).numpy()
    np.testing.assert_array_equal(pixels, np.round(255 * arrays["images"][0]))
    assert pictures[1].name == f"0000_label{y[0]}_clean.png"
    assert done["pgd"].attack.steps == 3
    assert not (tmp_path / "task_success.json").exists()


def test_the_summary_counts_what_was_right_before():
    images = np.zeros([4, 1, 1, 1], np.float32)
    crafted = attack_run.AttackedTestSet(
        kr.attacks.fgsm(kr.LinfBall(0.5)),
        images,
        np.array([0, 1, 2, 2]),
        images + np.float32(0.25),
        np.array([0, 1, 2, 0]),
        np.array([1, 1, 1, 1]),
        target=1,
    )
    assert crafted.summary() == (
        "FGSM: of 4 images 3 were classified correctly; 2 of these are now misclassified (66.7%).\n"
        "Largest distance 0.25, radius 0.5.\n"
        "100.0% of the images are classified as 1."
    )


def test_a_target_leaves_its_own_class_out(loaded):
    crafted = attack_run.attack_run(loaded, loaded.attack("pgd", targeted=True), target=3, limit=40)
    assert 0 < len(crafted.labels) < 40
    assert 3 not in crafted.labels


def test_the_seed_decides(loaded):
    def adversarial(seed):
        return attack_run.attack_run(loaded, loaded.attack("pgd"), limit=5, seed=seed).adversarial

    np.testing.assert_array_equal(adversarial(1), adversarial(1))
    assert (adversarial(1) != adversarial(2)).any()


def test_by_default_the_images_are_put_into_the_run(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    values = parsed(f"--run={run}", "--attack=multi_targeted", "--limit=5", "--pictures=0")
    _, directory = attack.run(values)
    assert [path.name for path in directory.iterdir()] == ["adversarial.npz"]
    assert directory == run / "attacks" / "multi_targeted"


@pytest.fixture(scope="module")
def pair(trained, tmp_path_factory):
    """A run whose model is two perceptrons, which nobody trained."""
    path = tmp_path_factory.mktemp("runs") / "pair"
    recipe = json.loads((trained / "recipe.json").read_text())
    path.mkdir()
    (path / "recipe.json").write_text(json.dumps(recipe))
    members = [kr.models.mlp((8, 8, 1), 10, hidden=(16,)) for _ in range(2)]
    model = kr.defenses.ensemble_at(kr.models.ensemble(members), kr.LinfBall(0.15))
    file = RunDirectory(path).checkpoint_file("last")
    file.parent.mkdir(exist_ok=True)
    model.save(file)
    return path


def test_members_by_several_solvers(pair, tmp_path):
    """A directory of images for each solver, and a table of what they achieve."""
    values = parsed(
        f"--run={pair}", "--attack=multi_task", "--solver=uniform,task_oriented", "--limit=20",
        "--pictures=0", "--steps=3", f"--output_dir={tmp_path}",
    )  # fmt: skip
    done, _ = attack.run(values, "python -m x")
    assert [one.attack.solver for one in done.values()] == [
        kr.solvers.EqualWeights(),
        kr.solvers.TaskOriented(),
    ]
    document = json.loads((tmp_path / "task_success.json").read_text())
    assert (document["command"], document["seed"]) == ("python -m x", 0)
    model = load_run(pair).model
    for row in document["attacks"]:
        arrays = np.load(tmp_path / row["name"] / "adversarial.npz")
        predicted = model(arrays["adversarial"])["member_logits"].numpy().argmax(-1)
        wrong = predicted != arrays["labels"][:, None]
        assert row["all_tasks"] == pytest.approx(wrong.all(axis=1).mean())
        assert row["average"] == pytest.approx(wrong.mean())
        assert row["names"] == ["member_1", "member_2"]
        assert f"| {row['name']} |" in (tmp_path / "task_success.md").read_text()
    assert "on all 2 tasks at once" in done["uniform"].summary()


def test_the_trace_of_several_solvers(pair, tmp_path):
    """Initial weights with a learning rate of almost 0 are the weights of all steps; the last row
    of the success rates is that of the images."""
    values = parsed(
        f"--run={pair}", "--attack=multi_task", "--limit=12", "--pictures=0", "--steps=3",
        "--trace", "--solver=uniform,min_norm:initial=0.2+0.8:learning_rate=1e-12",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    done, _ = attack.run(values, "python -m x")
    document = json.loads((tmp_path / "trace.json").read_text())
    uniform, held = document["attacks"].values()
    np.testing.assert_allclose(held["weights"], [[0.2, 0.8]] * 3, rtol=1e-6)
    np.testing.assert_allclose(uniform["weights"], 0.5)
    assert len(uniform["losses"]) == 4 and len(uniform["gradient_norms"]) == 3
    for one, row in zip(done.values(), (uniform, held), strict=True):
        assert row["all_tasks"][-1] == pytest.approx(one.success.all_tasks)
        np.testing.assert_allclose(row["success"][-1], one.success.per_task)
        assert row["num_points"] == 12
        # No sum of gradients with weights of sum 1 is longer than the longest of them.
        assert np.max(row["combined_norms"]) <= np.sum(row["gradient_norms"], axis=1).max()
    gradients = (tmp_path / "gradients.md").read_text()
    assert "Cosine with member_1" in gradients and "0.20 (± 0.00)" in gradients
    assert (tmp_path / "trace.png").stat().st_size > 0
    assert len(list(tmp_path.glob("trace_*.png"))) == 2


@pytest.mark.slow
def test_a_targeted_attack_on_members(pair, tmp_path):
    """Success is the target, of each member."""
    values = parsed(
        f"--run={pair}", "--attack=multi_task", "--limit=12", "--pictures=0", "--steps=2",
        "--target=3", f"--output_dir={tmp_path}",
    )  # fmt: skip
    done, _ = attack.run(values)
    arrays = np.load(tmp_path / "adversarial.npz")
    predicted = load_run(pair).model(arrays["adversarial"])["member_logits"].numpy().argmax(-1)
    assert done["multi_task"].attack.takes_targets
    assert done["multi_task"].success.average == pytest.approx((predicted == 3).mean())


def test_the_criterion_and_the_population_of_a_universal_perturbation(trained, tmp_path):
    """All images, of which the misclassified ones succeed from the start."""
    values = parsed(
        f"--run={trained}", f"--output_dir={tmp_path}", "--limit=10", "--pictures=0", "--steps=1",
        "--tasks=universal", "--group=2", "--attack=multi_task", "--solver=uniform",
        "--success_criterion=label", "--population=all",
    )  # fmt: skip
    made = attack.run(values)[0]["uniform"]
    assert len(made.labels) == 10 and made.attack.success_criterion == "label"
    assert made.success.average == pytest.approx((made.predictions != made.labels).mean())
    assert (made.clean_predictions != made.labels).any()


@pytest.mark.slow
def test_a_universal_perturbation_by_default_goes_into_a_directory_of_its_own(trained, tmp_path):
    """Of what the model gets right there are groups of 3, each with one perturbation; the images
    that fill none are left out."""
    run = shutil.copytree(trained, tmp_path / "run")
    values = parsed(
        f"--run={run}", "--attack=multi_task", "--tasks=universal", "--group=3", "--limit=23",
        "--pictures=0", "--steps=2", "--loss=margin", "--solver=min_max",
    )  # fmt: skip
    done, directory = attack.run(values)
    assert directory == run / "attacks" / "multi_task_universal"
    arrays = np.load(directory / "adversarial.npz")
    one = load_run(run)
    x, y = one.test_images(23)
    predicted = one.model(x, training=False)["logits"].numpy().argmax(1)
    groups = int((predicted == np.asarray(y)).sum()) // 3
    assert 0 < groups < 23 // 3
    moved = (arrays["adversarial"] - arrays["images"]).reshape(groups, 3, 64)
    # Where an image meets an end of its range all stop: the perturbation is one.
    np.testing.assert_allclose(moved, moved[:, :1].repeat(3, axis=1), atol=1e-6)
    assert done["min_max"].success.num_points == groups
    assert f"on {groups} groups of images" in (directory / "task_success.md").read_text()
    assert "image 1" not in (directory / "task_success.md").read_text()


def test_transformations_and_the_success_rates_of_another_attack(trained, tmp_path):
    arguments = [f"--run={trained}", f"--output_dir={tmp_path}", "--limit=8", "--pictures=0",
                 "--steps=1", "--tasks=transformations"]  # fmt: skip
    done, _ = attack.run(parsed(*arguments, "--attack=multi_task", "--stochastic"))
    assert done["multi_task"].attack.tasks.stochastic
    assert done["multi_task"].success.names == tuple(t.name for t in kr.transforms.ALL)
    done, _ = attack.run(parsed(*arguments, "--attack=pgd", "--nostochastic"))
    assert done["pgd"].attack == load_run(trained).attack("pgd", {"steps": 1})
    assert (
        len(json.loads((tmp_path / "task_success.json").read_text())["attacks"][0]["per_task"]) == 7
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ValueError, "--run is missing"),
        (["--run={run}", "--attack=pdg"], ValueError, "no attack 'pdg'"),
        (["--run={run}", "--solver=hvm"], ValueError, "--solver weights.*the attack is 'pgd'"),
        (["--run={run}", "--attack=multi_task"], ValueError, "expected an ensemble"),
        (["--run={run}", "--attack=multi_task", "--solver=hvn"], ValueError, "Did you mean 'hvm'"),
        (["--run={run}", "--group=3"], ValueError, "the tasks are 'members'"),
        (
            ["--run={run}", "--attack=fab", "--loss=dlr", "--queries=7"],
            ValueError,
            "The attack 'fab' does not take loss, queries; it takes steps, restarts",
        ),
        (["--run={run}", "--attack=pgd:queries=7"], ValueError, "'pgd' does not take queries"),
        (["--run={run}", "--trace"], ValueError, "--trace follows .*the attack is 'pgd'"),
        (["--run={run}", "--population=all"], ValueError, "--population is of tasks"),
        (["--run={run}", "--model=digits"], ValueError, "give its address by --server"),
        (["--run={run}", "--server=x:1", "--model=m", "--group=3"], ValueError, "not go with --se"),
        (["--run={run}", "--target=10"], ValueError, "target is 10; expected a class from 0 to 9"),
        (["--run={run}", "--output_dir={run}/recipe.json/x"], OSError, "recipe.json"),
    ],
)
def test_what_cannot_be_attacked(trained, arguments, error, message):
    with pytest.raises(error, match=message):
        attack.run(parsed(*(a.format(run=trained) for a in arguments)))
