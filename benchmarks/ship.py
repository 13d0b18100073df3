"""Put a trained run into the package: its weights, configuration, model card and what `validate` measured.

    matmamba train --config configs/cifar10/nano.yaml --data.root CIFAR10
    matmamba validate --checkpoint runs/cifar10 --root CIFAR10
    python benchmarks/ship.py runs/cifar10

Writes matmamba_vision/weights/VARIANT.safetensors, .yaml, .md, .json and two pictures; folders of the machine
that trained are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from matmamba_vision.checkpoint import load_checkpoint, save_checkpoint, write_whole
from matmamba_vision.cli.run_card import RunFacts, write_run_card
from matmamba_vision.models.shipped import FOLDER

LARGEST = 16 * 2**20


def main() -> None:
    """Ship the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, validated")
    ship(parser.parse_args().run, FOLDER)


def ship(run: Path, folder: Path) -> Path:
    """Write the files of a run; the file of its weights.

    Raises:
        ValueError: the weights are too large. OSError: the run was not validated.
    """
    checkpoint = load_checkpoint(run)
    if checkpoint.path.stat().st_size > LARGEST:
        raise ValueError(f"{checkpoint.path} is larger than {LARGEST >> 20} MiB")
    config = without_paths(checkpoint.run)
    results = json.loads((run / "validate" / "results.json").read_text())
    variant = checkpoint.model.pretrained_cfg["architecture"]
    file = save_checkpoint(folder / f"{variant}.safetensors", checkpoint.model, checkpoint.classes, config)
    results |= {"checkpoint": file.name, "digest": load_checkpoint(file).digest, "data": config["data"]}
    name, images = config["data"]["root"] or config["data"]["name"], results["images"]
    top1 = {row["width"]: row["top1"] for row in results["widths"]}
    facts = RunFacts(
        checkpoint.model, checkpoint.classes, name, images["gallery"], images["queries"], config, top1
    )
    write_whole(
        {
            folder / f"{variant}.yaml": yaml.safe_dump(config, sort_keys=False).encode(),
            folder / f"{variant}.md": write_run_card(facts).encode(),
            folder / f"{variant}.json": (json.dumps(results, indent=2) + "\n").encode(),
        }
    )
    for picture in ("curves.png", "validate/heatmap.png"):
        shutil.copyfile(run / picture, folder / f"{variant}.{Path(picture).name}")
    return file


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration, with folders by their last names."""
    data = {**config["data"], "root": Path(config["data"]["root"]).name}
    return {**config, "output": f"runs/{Path(config['output']).name}", "data": data}


if __name__ == "__main__":
    main()
