"""Put a trained run into the package: its weights, configuration, model card and what `validate` measured.

    matmamba train --config configs/cifar10/nano.yaml --data.root CIFAR10
    matmamba validate --checkpoint runs/cifar10 --root CIFAR10
    python benchmarks/ship.py runs/cifar10

A student's figures are those of benchmarks/distilled.py: --measured benchmarks/results/photos.json.
Writes matmamba_vision/weights/VARIANT.safetensors, .yaml, .md, .json and its pictures; weights that are too
large otherwise in half precision. A student's rotation, for galleries of its teacher's vectors, goes to
rotations/ beside them. Folders of the machine that trained are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from matmamba_vision.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_whole
from matmamba_vision.models.shipped import FOLDER
from matmamba_vision.rotation import FILE_NAME
from matmamba_vision.runs.run_card import RunFacts, write_run_card

LARGEST = 16 * 2**20


def main() -> None:
    """Ship the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, validated")
    parser.add_argument("--images", type=int, help="training images, if a part of them was the gallery")
    parser.add_argument("--measured", type=Path, help="instead of a validation: what distilled.py wrote")
    parser.add_argument("--note", default="", help="what the card says of data and terms")
    options = parser.parse_args()
    ship(options.run, FOLDER, options.images, options.measured, options.note)


def ship(
    run: Path, folder: Path, trained_on: int | None = None, measured: Path | None = None, note: str = ""
) -> Path:
    """Write the files of a run; the file of its weights.

    Args:
        trained_on: training images, by default those that were the gallery of the validation. measured: what
            distilled.py wrote of a student, by default the run's validation. note: for the card.

    Raises:
        ValueError: the weights are too large, or others were measured. OSError: the run was not validated.
    """
    checkpoint = load_checkpoint(run)
    results = results_of(run, measured, checkpoint)
    size = 4 * sum(parameter.numel() for parameter in checkpoint.model.parameters())
    if size > 2 * LARGEST:
        raise ValueError(f"{checkpoint.path} would be larger than {LARGEST >> 20} MiB in half precision, too")
    dtype = torch.float16 if size > LARGEST else None
    config = without_paths(checkpoint.run)
    variant = (checkpoint.model.pretrained_cfg or {})["architecture"]
    file = save_checkpoint(
        folder / f"{variant}.safetensors", checkpoint.model, checkpoint.classes, config, dtype
    )
    results |= {"checkpoint": file.name, "digest": load_checkpoint(file).digest, "data": config["data"]}
    name, images = config["data"]["root"] or config["data"]["name"], results["images"]
    top1 = {row["width"]: row["top1"] for row in results["widths"]}
    facts = RunFacts(
        model=checkpoint.model,
        classes=checkpoint.classes,
        data=name,
        images=trained_on or images["gallery"],
        held_out=images["queries"],
        config=config,
        top1=top1,
        made_with=json.loads((run / "environment.json").read_text()),
        note=" ".join(filter(None, (stopped(run, config), note))),
    )
    write_whole(
        {
            folder / f"{variant}.yaml": yaml.safe_dump(config, sort_keys=False).encode(),
            folder / f"{variant}.md": write_run_card(facts).encode(),
            folder / f"{variant}.json": (json.dumps(results, indent=2) + "\n").encode(),
        }
    )
    copy_beside(run, file)
    return file


def results_of(run: Path, measured: Path | None, checkpoint: Checkpoint) -> dict[str, Any]:
    """What was measured of a run; `ValueError` if it was measured of other weights."""
    results: dict[str, Any] = json.loads((measured or run / "validate" / "results.json").read_text())
    if not measured:
        return results
    if results["student"] != checkpoint.digest:
        raise ValueError(f"{measured} was not measured of {checkpoint.path}")
    retrieval = results.pop("data")
    known = {what: retrieval["photos"][what] for what in ("gallery", "queries")}
    return results | {"images": known, "retrieval": retrieval}


def copy_beside(run: Path, file: Path) -> None:
    """Put a run's pictures, and a student's rotation, beside the file of its weights."""
    if (rotation := run / FILE_NAME).is_file():
        (file.parent / "rotations").mkdir(exist_ok=True)
        shutil.copyfile(rotation, file.parent / "rotations" / file.name)
    for picture in ("curves.png", "validate/heatmap.png"):
        if (run / picture).is_file():
            shutil.copyfile(run / picture, file.with_name(f"{file.stem}.{Path(picture).name}"))


def stopped(run: Path, config: dict[str, Any]) -> str:
    """How far the run came, if that was not to its end."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    done = max(line["epoch"] for line in lines if line["event"] == "epoch")
    planned = config["optim"]["epochs"]
    if done == planned:
        return ""
    if minutes := config["optim"].get("max_minutes"):
        return (
            f"The run ended by its limit of {minutes:g} minutes, in epoch {done} of {planned}, with the"
            " learning rate at its end."
        )
    return f"The run was stopped: these are the weights after {done} of {planned} epochs."


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration, with folders by their last names."""
    data = {**config["data"], "root": Path(config["data"]["root"]).name}
    found = {**config, "output": f"runs/{Path(config['output']).name}", "data": data}
    if "teacher" in config:
        kind, _, place = config["teacher"].rpartition(":")
        found["teacher"] = f"{kind}:{Path(place).name}".removeprefix(":")
        found["images"] = [Path(folder).name for folder in config["images"]]
    return found


if __name__ == "__main__":
    main()
