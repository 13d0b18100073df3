"""Index a folder of photos, and search it: by image, by id, with a filter.

    python examples/own_photos.py PHOTOS     # any folder of images
    python examples/own_photos.py            # without one: handwritten digits, written as pictures

Nothing is trained, and nothing is downloaded: the weights come with the package. With --gallery the gallery
is kept, and when the script is run again, only what is new is encoded.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matmamba_vision as mv
from PIL import Image

IMAGES_A_CLASS = 20


def main() -> None:
    """Index, then ask in three ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of images; by default digits are drawn")
    parser.add_argument("--gallery", type=Path, help="folder of the gallery; by default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or draw_digits(Path(scratch) / "digits")
        show(folder, arguments.gallery or Path(scratch) / "gallery")


def show(folder: Path, place: Path) -> None:
    """Index a folder, and print what three queries find."""
    indexed = mv.index(folder, place)
    print(f"{indexed.added} images added, {indexed.total} in all")
    with mv.open_gallery(place) as gallery:
        query = first_image(folder)
        print_hits(f"like the file {query.name}:", gallery.search(query, k=5))
        image_id = gallery.search(query, k=1)[0].id
        print_hits(f"like the gallery's own {image_id}:", gallery.search(image_id, k=5))
        label = gallery.search(query, k=1)[0].label
        if label is not None:
            print_hits(
                f"the same, but not of class {label}:",
                gallery.search(image_id, k=5, where=f"label <> '{label}'"),
            )


def first_image(folder: Path) -> Path:
    """A picture of the folder."""
    suffixes = (".jpg", ".jpeg", ".png", ".webp")
    return next(file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes)


def print_hits(title: str, answer: mv.Answer) -> None:
    """The hits of a query, best first."""
    print(f"\n{title}")
    for hit in answer:
        print(f"  {hit.rank}  {hit.score:.3f}  {hit.id}")


def draw_digits(folder: Path) -> Path:
    """Handwritten digits of scikit-learn as PNG files, a folder for each class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = dict.fromkeys(range(10), 0)
    for pixels, label in zip(digits.images, digits.target, strict=True):
        if counts[label] < IMAGES_A_CLASS:
            file = folder / str(label) / f"{counts[label]:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((pixels * 15.9).astype("uint8"))
            image.resize((128, 128), Image.Resampling.BICUBIC).convert("RGB").save(file)
            counts[label] += 1
    return folder


if __name__ == "__main__":
    main()
