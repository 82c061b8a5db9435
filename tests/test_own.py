"""Other images than those of the catalogue, from the first run to the last: real DVC commands."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import change_params, commit, dvc, run, stages_run
from PIL import Image

from stages.dataset import idx

COLOURS = {"blue sky": (80, 130, 220), "grass": (70, 160, 60), "höhle": (40, 36, 30)}
AFTER_DOWNLOAD = {"preprocess", "train@0", "package@0", "evaluate", "robustness"}


def picture(name: str, seed: int) -> Image.Image:
    """A rough surface of this colour, like no other."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(-40, 40, (6, 8, 1)) + rng.integers(-8, 8, (6, 8, 3))
    pixels = np.clip(np.array(COLOURS[name]) + rough, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC)


def put(place: Path, *seeds: int) -> None:
    for number, name in enumerate(COLOURS):
        (place / name).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            picture(name, 1000 * number + seed).save(place / name / f"{seed}.png")


def names_of_test_images(project: Path) -> set[str]:
    return set(json.loads((project / "data/processed/test/files.json").read_bytes()))


@pytest.mark.slow
def test_a_folder_of_pictures_from_the_first_run_to_undo(folder: Path):
    place = folder / "data/own/places"
    put(place, *range(20))
    options = (folder / "presets/photos.txt").read_text(encoding="utf-8").split()
    small = "download.dataset=places download.size=16 train.network.filters=[8,8,8]"
    small += " train.learning_rate=0.05 train.muon_learning_rate=0.05 train.epochs=6"
    options += [part for change in small.split() for part in ("-S", change)]
    dvc(folder, "exp", "run", *options)
    result = json.loads((folder / "metrics/evaluate.json").read_bytes())
    assert (result["dataset"], result["images"]) == ("places", 12)
    assert result["accuracy"] > 0.9
    assert pd.read_csv(folder / "metrics/confusion_matrix.csv", index_col=0).index.tolist() == [
        *COLOURS
    ]
    assert (folder / "plots/data/classes.png").exists()

    # A touched picture runs nothing; one more runs what depends on it, and moves no other.
    (place / "grass/3.png").touch()
    assert not stages_run(dvc(folder, "repro"))
    held_out = names_of_test_images(folder)
    put(place, 20)
    assert stages_run(dvc(folder, "repro")) == {"download", *AFTER_DOWNLOAD}
    assert names_of_test_images(folder) >= held_out

    picture("grass", 77).save(folder / "new.jpg")
    said = run("python", "-m", "apps.classify", "new.jpg", cwd=folder).stdout
    assert "grass" in said

    # Versions: kept, changed, and brought back with what was computed of them.
    dvc(folder, "add", "data/own/places")
    commit(folder, "three classes")
    shutil.rmtree(place / "höhle")
    dvc(folder, "add", "data/own/places")
    assert "download" in stages_run(dvc(folder, "repro", "preprocess"))
    assert len(pd.read_csv(folder / "metrics/data.csv")) == 2
    run("git", "stash", "-q", cwd=folder)
    dvc(folder, "checkout", "-f")
    assert len([*place.glob("höhle/*.png")]) == 21
    # The pictures are looked at once more, since the .dvc file lies beside them; then all is known.
    assert stages_run(dvc(folder, "repro")) <= {"download"}
    assert len(pd.read_csv(folder / "metrics/data.csv")) == 3

    # Back to the committed result; the pictures stay as they are.
    change_params(folder, evaluate__samples=2)
    assert stages_run(dvc(folder, "repro")) == {"evaluate"}
    put(place, 30)
    run("python", "-m", "tools.undo", cwd=folder)
    assert (place / "grass/30.png").exists()
    assert not run(
        "git", "diff", "--stat", "HEAD", "--", "params.yaml", "metrics", "plots", cwd=folder
    ).stdout


@pytest.mark.slow
def test_images_of_another_size_run_to_the_end(folder: Path):
    """Rectangles that lie or stand, 20×24 pixels, grey, as a dataset of the catalogue."""
    rng = np.random.default_rng(0)
    files = {}
    for split, count in (("train", 300), ("test", 100)):
        labels = np.arange(count, dtype=np.uint8) % 2
        images = rng.integers(0, 40, (count, 20, 24), np.uint8)
        for image, label in zip(images, labels, strict=True):
            y, x = rng.integers(2, 6, 2)
            height, width = (12, 4) if label else (4, 12)
            image[y : y + height, x : x + width] = rng.integers(150, 255)
        idx.write(folder / idx.images_file(split), images)
        idx.write(folder / idx.labels_file(split), labels)
        files |= {name: folder / name for name in (idx.images_file(split), idx.labels_file(split))}
    entry = {
        "subject": "rectangles",
        "licence": "CC0",
        "classes": ["lying", "standing"],
        "mirrors": [str(folder)],
        "files": {
            name: {
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for name, path in files.items()
        },
    }
    with open(folder / "stages/dataset/catalogue.yaml", "a", encoding="utf-8") as file:
        file.write("\n" + yaml.safe_dump({"rectangles": entry}))
    change_params(folder, download__dataset="rectangles", train__epochs=3)
    change_params(folder, train__batch_size=32, train__least_steps=30)
    assert "download" in stages_run(run("dvc", "repro", cwd=folder, MNIST_MIRROR="").stdout)
    result = json.loads((folder / "metrics/evaluate.json").read_bytes())
    assert (result["dataset"], result["images"]) == ("rectangles", 100)
    assert result["accuracy"] > 0.9

    raw = np.frombuffer(gzip.decompress(files[idx.images_file("test")].read_bytes()), np.uint8)
    Image.fromarray(raw[-480:].reshape(20, 24)).save(folder / "one.png")
    assert "standing" in run("python", "-m", "apps.classify", "one.png", cwd=folder).stdout
    drawn = run("python", "-m", "apps.draw", cwd=folder, check=False)
    assert drawn.returncode == 1
    assert "expected square images" in drawn.stderr

    run("git", "checkout", "-q", "params.yaml", "stages", cwd=folder)
    assert not stages_run(dvc(folder, "repro")), "the way back"
    assert not run("git", "status", "--porcelain", "-uno", cwd=folder).stdout
