"""TFDS sets: real ones where they are present, small ones made here, and the unsuitable ones."""

from __future__ import annotations

import json
import shlex
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_robust.data as data
from keras_robust.data import tfds_reader

tfds = pytest.importorskip("tensorflow_datasets")


def example(number):
    pixels = np.full([4, 4, 1], number, np.uint8)
    return number, {"image": pixels, "label": number % 2, "name": str(number)}


class Small(tfds.core.GeneratorBasedBuilder):
    """Image number n is filled with n and has the label n % 2. Nothing is downloaded."""

    VERSION = tfds.core.Version("1.0.0")
    IMAGE = tfds.features.Image(shape=(4, 4, 1))
    KEYS = ("image", "label")
    SIZES = {"train": 20, "test": 6}

    def _info(self):
        features = {
            "image": self.IMAGE,
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=self.KEYS,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(size) for split, size in self.SIZES.items()}

    def _generate_examples(self, size):
        for number in range(size):
            yield example(number)


class SmallValidated(Small):
    """Has `validation` in place of `test`, and has no supervised keys."""

    KEYS = None
    SIZES = {"train": 20, "validation": 6}


class SmallWhole(Small):
    """Has `train` alone."""

    SIZES = {"train": 20}


class SmallTest(Small):
    """Has `test` alone."""

    SIZES = {"test": 6}


class SmallNamed(Small):
    """Its task is to tell the name from the image."""

    KEYS = ("image", "name")


class SmallVarying(Small):
    """Images of any size."""

    IMAGE = tfds.features.Image(shape=(None, None, 3))


class SmallSizes(Small):
    """Images of several sizes."""

    IMAGE = tfds.features.Image(shape=(None, None, 1))

    def _generate_examples(self, size):
        for number in range(size):
            _, values = example(number)
            yield number, {**values, "image": np.full([4 + number % 3, 5, 1], number, np.uint8)}


class SmallDeep(Small):
    """Images of 16 bits."""

    IMAGE = tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)


@pytest.fixture(autouse=True)
def quiet_tfds():
    tfds.disable_progress_bar()


def pairs(arrays):
    """The numbers of the images, after checking that each has its own label."""
    numbers = arrays.images[:, 0, 0, 0]
    assert arrays.images.dtype == np.uint8 and arrays.labels.dtype == np.int32
    np.testing.assert_array_equal(numbers % 2, arrays.labels)
    return sorted(numbers.tolist())


def test_missing_data_names_the_command_that_downloads_it(tmp_path):
    directory = tmp_path / "with 'quotes\" and $blanks"
    with pytest.raises(FileNotFoundError) as caught:
        tfds_reader.read("small", directory)
    message = str(caught.value)
    assert "There is no data of 'small'" in message and "small/1.0.0. Download it with" in message
    assert "pass download=True" in message

    python, option, code = shlex.split(message.splitlines()[1])
    assert (python, option) == ("python", "-c")
    exec(code)  # in this process, where the small sets are known to TFDS
    source = tfds_reader.read("small", directory)
    assert pairs(source.train) == list(range(20)) and pairs(source.test) == list(range(6))


def test_images_of_several_sizes_are_resized(tmp_path):
    splits = data.from_tfds(
        "small_sizes", image_size=(6, 5), data_dir=tmp_path, download=True, batch_size=3
    )
    assert splits.info.image_shape == (6, 5, 1) and splits.info.test_size == 6
    images = np.concatenate([x for x, _ in splits.test.as_numpy_iterator()])
    assert sorted(set((images * 255).round().ravel())) == list(range(6))


def test_the_command_without_a_directory_leaves_it_to_tfds():
    command = tfds_reader.fetch_command("mnist")
    assert command.endswith("""'import tensorflow_datasets as tfds; tfds.load("mnist")'""")


def test_download_prepares_and_the_next_reading_is_the_same(tmp_path):
    first = tfds_reader.read("small", tmp_path, download=True)
    second = tfds_reader.read("small:1.0.0", str(tmp_path))
    assert first.name == second.name == "TFDS small/1.0.0"
    assert first.class_names == ("even", "odd") and first.test_split == "test"
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_without_test_examples_validation_is_the_test(tmp_path):
    source = tfds_reader.read("small_validated", tmp_path, download=True)
    assert source.test_split == "validation" and pairs(source.test) == list(range(6))


def test_without_either_a_fifth_is_held_out(tmp_path):
    source = tfds_reader.read("small_whole", tmp_path, download=True)
    assert source.test_split == "held out of train"
    assert np.bincount(source.test.labels).tolist() == [2, 2]
    assert sorted(pairs(source.train) + pairs(source.test)) == list(range(20))


def test_load_gives_batches_and_the_info(tmp_path):
    splits = data.load("small", batch_size=8, data_dir=tmp_path, download=True, validation=4)
    assert splits.info == data.DatasetInfo(
        name="small",
        source="TFDS small/1.0.0",
        image_shape=(4, 4, 1),
        classes=2,
        class_names=("even", "odd"),
        train_size=16,
        validation_size=4,
        test_size=6,
        test_split="test",
    )
    seen = [(x, y) for split in splits for x, y in split.unbatch().as_numpy_iterator()]
    assert len(seen) == 26
    for x, y in seen:
        assert x.dtype == np.float32 and round(x[0, 0, 0] * 255) % 2 == y


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fashon_mnist", r"There is no dataset 'fashon_mnist'. Did you mean fashion_mnist"),
        ("CIFAR-10", r"There is no dataset 'CIFAR-10'. Did you mean cifar10"),
        ("digit", r"Did you mean digits"),
        (
            "xyzzy",
            r"Expected digits or toy, which are embedded, or one of \d+ datasets of TFDS, such as",
        ),
        ("mnist/foo", r"TFDS rejects 'mnist/foo': .*BuilderConfig foo not found"),
        ("mnist:9.9.9", r"TFDS rejects 'mnist:9.9.9': .*cannot be loaded at version 9.9.9"),
        ("ag_news_subset", r"its features are description \(Text\), label \(ClassLabel\), title"),
        ("small_named", r"image \(Image\), label .* TFDS pairs \('image', 'name'\)"),
        ("small_varying", r"vary in size \(their shape is \(None, None, 3\)\)"),
        ("small_deep", r"'small_deep' are uint16, .* expected uint8"),
    ],
)
def test_unsuitable_names_are_refused_before_any_data_is_read(name, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        tfds_reader.read(name, tmp_path / "nowhere")


def test_a_set_without_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'small_test' has no split 'train'; its splits are test"):
        tfds_reader.read("small_test", tmp_path, download=True)


# Files of somebody else, and damaged ones.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory with the small set."""
    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("prepared")
    tfds_reader.read("small", directory, download=True)
    return directory


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of the small set's files, to be damaged."""
    shutil.copytree(prepared / "small", tmp_path / "small")
    return tmp_path / "small" / "1.0.0"


@pytest.mark.parametrize("name", ["small:1.0.0", "payload"])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_import_nothing(name, legacy, copied, tmp_path, monkeypatch):
    """The payload is imported by TFDS alone, and is not imported by `read`."""
    (tmp_path / "evil.py").write_text("open('executed', 'w').close()\nclass X: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    document = json.loads((copied / "features.json").read_text())
    document["featuresDict"]["features"]["label"]["pythonClassName"] = "evil.X"
    if legacy:
        document = {"type": "evil.X", "content": {}}
    (copied / "features.json").write_text(json.dumps(document))
    if name == "payload":  # a set that TFDS does not know, only its files
        info = (copied / "dataset_info.json").read_text()
        (copied / "dataset_info.json").write_text(info.replace('"small"', '"payload"'))
        shutil.move(tmp_path / "small", tmp_path / "payload")
    with pytest.raises(ValueError, match=r"would import 'evil\.X'.* not of tensorflow_datasets"):
        tfds_reader.read(name, tmp_path)
    assert "evil" not in sys.modules and not (tmp_path / "executed").exists()
    with pytest.raises(Exception, match=r"Unrecognized FeatureConnector"):
        tfds.builder(name, data_dir=tmp_path)
    assert (tmp_path / "executed").exists()
    sys.modules.pop("evil")


@pytest.mark.parametrize(
    "name", ["kaggle:small", "huggingface:a/b", "small/data_dir=/elsewhere", "small:1.0.0/a=b"]
)
def test_names_that_run_code_of_others_are_refused(name):
    with pytest.raises(
        ValueError, match=r"expected a name in TFDS without (a namespace|arguments)"
    ):
        tfds_reader.read(name)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def drop_one(path):
    """Removes the first record: its length, 8 bytes, two checksums and the content."""
    content = path.read_bytes()
    path.write_bytes(content[int.from_bytes(content[:8], "little") + 16 :])


def not_an_image(path):
    """Writes as many records, with valid checksums, whose image is not a PNG."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        features = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"no image"])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
            "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"0"])),
        }
        for _ in range(20):
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


TRAIN = "small-train.tfrecord-00000-of-00001"


@pytest.mark.parametrize(
    ("file", "damage", "error", "text"),
    [
        (TRAIN, cut, ValueError, rf"{TRAIN} is damaged \(truncated record"),
        (TRAIN, flip, ValueError, rf"{TRAIN} is damaged \(corrupted record at"),
        (TRAIN, lambda path: path.unlink(), FileNotFoundError, f"{TRAIN} of the dataset is miss"),
        (TRAIN, lambda path: path.write_bytes(b""), ValueError, "hold 0 examples; expected 20"),
        (TRAIN, drop_one, ValueError, "'train' in .*1.0.0 hold 19 examples; expected 20"),
        (TRAIN, not_an_image, ValueError, "An example of the split 'train' in .* cannot be decod"),
        ("small-test.tfrecord-00000-of-00001", flip, ValueError, "test.tfrecord.* is damaged"),
        ("dataset_info.json", cut, ValueError, r"dataset_info\.json is damaged"),
        ("dataset_info.json", lambda path: path.write_text("[]"), ValueError, "json is damaged"),
        ("dataset_info.json", lambda path: path.unlink(), ValueError, r"dataset_info\.json"),
        ("features.json", cut, ValueError, r"features\.json is damaged"),
        (
            "features.json",
            lambda path: path.write_bytes(b"\xff"),
            ValueError,
            "features.json is da",
        ),
    ],
)
def test_the_damaged_file_is_named(file, damage, error, text, copied, tmp_path):
    damage(copied / file)
    with pytest.raises(error, match=text):
        tfds_reader.read("small:1.0.0", tmp_path)
