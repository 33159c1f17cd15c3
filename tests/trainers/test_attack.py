from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import keras_robust as kr
from trainers import attack, crafting


def parsed(*arguments):
    values = flags.FlagValues()
    attack.define_flags(values)
    values(["program", *arguments])
    return values


def test_images_are_kept_as_arrays_and_as_pictures(trained, opened, tmp_path):
    values = parsed(
        f"--run={trained}", f"--output_dir={tmp_path}", "--limit=20", "--pictures=2", "--steps=3"
    )
    crafted, directory = attack.run(values)
    assert directory == tmp_path
    arrays = np.load(tmp_path / "adversarial.npz")
    assert set(arrays.files) == {
        "images",
        "labels",
        "adversarial",
        "clean_predictions",
        "predictions",
    }
    x, y = opened.test_images(20)
    np.testing.assert_array_equal(arrays["images"], x)
    np.testing.assert_array_equal(arrays["labels"], y)
    assert np.abs(arrays["adversarial"] - arrays["images"]).max() <= 0.15 + 1e-6
    said = opened.model(arrays["adversarial"])["logits"].numpy().argmax(1)
    np.testing.assert_array_equal(arrays["predictions"], said)
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    pixels = tf.io.decode_png(pictures[1].read_bytes()).numpy()
    np.testing.assert_array_equal(pixels, np.round(255 * arrays["images"][0]))
    assert pictures[1].name == f"0000_label{y[0]}_clean.png"
    assert crafted.attack.steps == 3


def test_the_summary_counts_what_was_right_before():
    images = np.zeros([4, 1, 1, 1], np.float32)
    crafted = crafting.Crafted(
        kr.attacks.fgsm(kr.LinfBall(0.5)),
        images,
        np.array([0, 1, 2, 2]),
        images + np.float32(0.25),
        np.array([0, 1, 2, 0]),
        np.array([1, 1, 1, 1]),
        target=1,
    )
    assert crafted.summary() == (
        "FGSM: of 4 images the model got 3 right; 2 of these are fooled (66.7%).\n"
        "Largest distance 0.25, radius 0.5.\n"
        "100.0% of the images are taken for class 1."
    )


def test_a_target_leaves_its_own_class_out(opened):
    crafted = crafting.craft(opened, opened.attack("pgd", targeted=True), target=3, limit=40)
    assert 0 < len(crafted.labels) < 40
    assert 3 not in crafted.labels


def test_the_seed_decides(opened):
    def adversarial(seed):
        return crafting.craft(opened, opened.attack("pgd"), limit=5, seed=seed).adversarial

    np.testing.assert_array_equal(adversarial(1), adversarial(1))
    assert (adversarial(1) != adversarial(2)).any()


def test_by_default_the_images_are_put_into_the_run(trained, tmp_path):
    import shutil

    run = shutil.copytree(trained, tmp_path / "run")
    values = parsed(f"--run={run}", "--attack=multi_targeted", "--limit=5", "--pictures=0")
    _, directory = attack.run(values)
    assert [path.name for path in directory.iterdir()] == ["adversarial.npz"]
    assert directory == run / "attacks" / "multi_targeted"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ValueError, "--run is missing"),
        (["--run={run}", "--attack=pdg"], ValueError, "no attack 'pdg'"),
        (["--run={run}", "--target=10"], ValueError, "target is 10; expected a class from 0 to 9"),
        (["--run={run}", "--output_dir={run}/recipe.json/x"], OSError, "recipe.json"),
    ],
)
def test_what_cannot_be_attacked(trained, arguments, error, message):
    with pytest.raises(error, match=message):
        attack.run(parsed(*(a.format(run=trained) for a in arguments)))
