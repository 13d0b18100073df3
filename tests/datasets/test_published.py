"""ImageNet and CIFAR in the layouts that are published."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_datasets import DataConfig, DataError, Splits, open_splits
from PIL import Image

# A fish, a crane that is a bird, and a crane that lifts: names alone are not unique.
WNIDS = ("n01440764", "n02012849", "n03126707")
NAMES = ("n01440764 tench", "n02012849 crane", "n03126707 crane")
# Classes of the validation images 1, 2, 3, ...
TRUTH = (2, 0, 1, 1)


def save(file: Path, level: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(file, "JPEG")


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Two training images for each class, and flat validation images without labels."""
    root = tmp_path / "imagenet"
    for wnid in WNIDS:
        for number in (7, 13):
            save(root / "train" / wnid / f"{wnid}_{number}.JPEG", number)
    for number, label in enumerate(TRUTH, start=1):
        save(root / "val" / f"{val_name(number)}.JPEG", 80 * label)
    return root


def open_imagenet(root: Path) -> Splits:
    return open_splits(DataConfig(name="imagenet", root=str(root)))


def require_truth(splits: Splits) -> None:
    assert splits.train.classes == splits.held_out.classes == NAMES
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Path(image_id).stem for image_id in splits.held_out.ids] == [
        val_name(number + 1) for number in range(4)
    ]
    assert splits.held_out.labels.tolist() == list(TRUTH)
    for index, label in enumerate(TRUTH):
        sample = splits.held_out[index]
        assert (sample.label, sample.image.getpixel((0, 0))) == (label, (80 * label,) * 3)


def kaggle(root: Path) -> None:
    rows = [f"{val_name(number)},{WNIDS[label]} 1 2 3 4 " for number, label in enumerate(TRUTH, start=1)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    (root / "ILSVRC" / "Data" / "CLS-LOC").mkdir(parents=True)
    for part in ("train", "val"):
        (root / part).rename(root / "ILSVRC" / "Data" / "CLS-LOC" / part)


def numbers(root: Path) -> None:
    lines = [f"{val_name(number)}.JPEG {label}" for number, label in enumerate(TRUTH, start=1)]
    (root / "val" / "val.txt").write_text("\n".join(lines) + "\n")


def wnids(root: Path) -> None:
    lines = [f"{val_name(number)}.JPEG {WNIDS[label]}" for number, label in enumerate(TRUTH, start=1)]
    (root / "val.txt").write_text("\n".join(lines))


def devkit(root: Path) -> None:
    """The ground truth counts in an order of its own."""
    order = (1, 2, 0)
    truth = "\n".join(str(order.index(label) + 1) for label in TRUTH)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    (root / "map_clsloc.txt").write_text("".join(f"{WNIDS[label]} 1 x\n" for label in order))


def devkit_matrix(root: Path) -> None:
    """As MATLAB wrote it, with a synset that is no class."""
    from scipy.io import savemat

    devkit(root)
    (root / "map_clsloc.txt").unlink()
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (root / "ILSVRC2012_validation_ground_truth.txt").rename(
        folder / "ILSVRC2012_validation_ground_truth.txt"
    )
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(4, "n00001740", "entity", "", 3)]
    rows += [(number, WNIDS[label], "", "", 0) for number, label in ((3, 0), (1, 1), (2, 2))]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})


def folders(root: Path) -> None:
    for number, label in enumerate(TRUTH, start=1):
        (root / "val" / WNIDS[label]).mkdir(exist_ok=True)
        name = f"{val_name(number)}.JPEG"
        (root / "val" / name).rename(root / "val" / WNIDS[label] / name)


@pytest.mark.parametrize("labelled_by", [kaggle, numbers, wnids, devkit, devkit_matrix])
def test_flat_validation_images_get_their_labels(imagenet: Path, labelled_by: object) -> None:
    labelled_by(imagenet)  # type: ignore[operator]
    require_truth(open_imagenet(imagenet))


def test_validation_images_can_lie_in_folders(imagenet: Path) -> None:
    folders(imagenet)
    splits = open_imagenet(imagenet)
    assert splits.train.classes == splits.held_out.classes == NAMES
    found = {
        Path(image_id).stem: int(label)
        for image_id, label in zip(splits.held_out.ids, splits.held_out.labels, strict=True)
    }
    assert found == {val_name(number): label for number, label in enumerate(TRUTH, start=1)}


def test_names_come_from_the_mapping_if_there_is_one(imagenet: Path) -> None:
    numbers(imagenet)
    (imagenet / "LOC_synset_mapping.txt").write_text(f"{WNIDS[0]} big fish, swimmer\n{WNIDS[1]} bird\n")
    classes = open_imagenet(imagenet).train.classes
    assert classes == ("n01440764 big fish", "n02012849 bird", "n03126707")


def test_what_is_wrong_with_imagenet_is_named(imagenet: Path) -> None:
    with pytest.raises(DataError, match=r"val has no folders.*LOC_val_solution\.csv, val\.txt"):
        open_imagenet(imagenet)
    devkit(imagenet)
    (imagenet / "map_clsloc.txt").write_text(WNIDS[0])
    with pytest.raises(DataError, match=r"ground_truth\.txt.*1\.\.1"):
        open_imagenet(imagenet)
    (imagenet / "map_clsloc.txt").unlink()
    with pytest.raises(DataError, match=r"ground_truth\.txt.*synsets\.txt, map_clsloc\.txt, meta\.mat"):
        open_imagenet(imagenet)
    for line, message in (
        (f"{val_name(1)}.JPEG 3", r"val\.txt.*0\.\.2"),
        (f"{val_name(1)}.JPEG n09999999", "n09999999, which is not trained"),
        (f"{val_name(1)}.JPEG 0", rf"{val_name(2)}\.JPEG is not in the list"),
    ):
        (imagenet / "val.txt").write_text(line)
        with pytest.raises(DataError, match=message):
            open_imagenet(imagenet)
    (imagenet / "val.txt").write_text("\n".join(f"{val_name(number)}.JPEG 0" for number in range(1, 5)))
    with pytest.raises(DataError, match=r"no held-out images of the class n02012849 crane, n03126707 crane"):
        open_imagenet(imagenet)
    (imagenet / "val").rename(imagenet / "other")
    with pytest.raises(DataError, match="train and val"):
        open_imagenet(imagenet)


def cifar_pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def write_pickle(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    root = tmp_path / "cifar-10-batches-py"
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        write_pickle(root / name, {"data": cifar_pixels(4, number), "labels": [0, 1, 2, 1]})
    write_pickle(root / "batches.meta", {"label_names": ["plane", "car", "bird"]})
    return root


def test_cifar10_is_read_as_torchvision_stores_it(cifar10: Path) -> None:
    for root in (cifar10, cifar10.parent):
        splits = open_splits(DataConfig(name="cifar10", root=str(root)))
        assert (len(splits.train), len(splits.held_out)) == (20, 4)
        assert splits.train.classes == ("plane", "car", "bird")
        sample = splits.train[6]
        assert (sample.id, sample.label) == ("data_batch_2#2", 2)
        expected = cifar_pixels(4, 1)[2].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(np.asarray(sample.image), expected)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    root = tmp_path / "cifar-100-python"
    for name, seed in (("train", 0), ("test", 1)):
        content = {"data": cifar_pixels(3, seed), "fine_labels": [2, 0, 1], "coarse_labels": [0, 0, 0]}
        write_pickle(root / name, content)
    write_pickle(root / "meta", {"fine_label_names": ["apple", "bear", "cup"], "coarse_label_names": ["x"]})
    splits = open_splits(DataConfig(name="cifar100", root=str(tmp_path)))
    assert splits.train.labels.tolist() == splits.held_out.labels.tolist() == [2, 0, 1]
    assert splits.train.classes == ("apple", "bear", "cup")


def test_a_pickle_of_python_2_is_read(cifar10: Path) -> None:
    """As the published files are: strings of bytes, and an array's memory in one of them."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI3072\nt"
    array += (
        b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + b"\\xe9" * 3072 + b"'\ntb"
    )
    (cifar10 / "test_batch").write_bytes(b"(dS'data'\n" + array + b"sS'labels'\n(lI0\naI1\naI2\nas.")
    with pytest.raises(DataError, match="has 1 images and 3 labels"):
        open_splits(DataConfig(name="cifar10", root=str(cifar10)))
    for name in (f"data_batch_{number}" for number in range(1, 6)):
        write_pickle(cifar10 / name, {"data": cifar_pixels(1, 0), "labels": [0]})
    (cifar10 / "test_batch").write_bytes(b"(dS'data'\n" + array + b"sS'labels'\n(lI0\nas.")
    held_out = open_splits(DataConfig(name="cifar10", root=str(cifar10))).held_out
    assert held_out[0].image.getpixel((5, 5)) == (0xE9,) * 3


class Malicious:
    def __init__(self, call: object, *arguments: object) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> str | tuple[Any, ...]:
        return self.reduced


def test_a_pickle_that_runs_code_is_refused(cifar10: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for call in (Malicious(os.mkdir, str(trace)), Malicious(eval, f"__import__('os').mkdir({str(trace)!r})")):
        write_pickle(cifar10 / "data_batch_3", {"data": call, "labels": []})
        with pytest.raises(DataError, match=r"data_batch_3: it asks for \w+\.\w+, which is not plain data"):
            open_splits(DataConfig(name="cifar10", root=str(cifar10)))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [0]}, "no 'data'"),
        ({"data": np.zeros((4, 10), np.uint8), "labels": [0] * 4}, "3072"),
        ({"data": np.zeros((4, 3072)), "labels": [0] * 4}, "uint8"),
        ({"data": cifar_pixels(4, 0)}, "no 'labels'"),
        ([1], "no dictionary"),
    ],
)
def test_a_wrong_batch_of_cifar_is_named(cifar10: Path, content: object, message: str) -> None:
    write_pickle(cifar10 / "data_batch_2", content)
    with pytest.raises(DataError, match=rf"data_batch_2.*{message}"):
        open_splits(DataConfig(name="cifar10", root=str(cifar10)))


def test_a_missing_or_cut_file_of_cifar_is_named(cifar10: Path) -> None:
    batch = cifar10 / "data_batch_4"
    batch.write_bytes(batch.read_bytes()[:500])
    with pytest.raises(DataError, match="data_batch_4"):
        open_splits(DataConfig(name="cifar10", root=str(cifar10)))
    batch.unlink()
    with pytest.raises(DataError, match="data_batch_4"):
        open_splits(DataConfig(name="cifar10", root=str(cifar10)))
    with pytest.raises(DataError, match="no cifar-100-python"):
        open_splits(DataConfig(name="cifar100", root=str(cifar10)))
