"""`python -m tools.card`: numbers that texts quote come from the files of one run."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import run_stage

from stages.base.stage import UserError
from stages.report.corruptions import MNIST_C, OTHERS
from tools import card

QUOTED = "accuracy epochs errors images interval val train worst other corrupt loss ece summary run"
QUOTED += " classes splits"
WORST = max(MNIST_C)  # any of them


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two errors in 200 test images, and a README that quotes it."""
    write_params(tmp_path)
    (tmp_path / "metrics/package").mkdir(parents=True)
    (tmp_path / "metrics/exports").mkdir()
    errors = "index,actual,predicted,confidence\n7,6,0,0.9\n9,6,0,0.8\n"
    matrix = "actual,6,0\n6,98,2\n0,0,100\n"
    exports = "file,kB,images,errors,other\nint8.tflite,1340,99,3,1\n"
    data = "class,train,validation,test\n6,500,50,100\n0,600,60,100\n"
    texts = {
        "data": data,
        "misclassified": errors,
        "confusion_matrix": matrix,
        "exports/seed-0": exports,
    }
    for name, text in texts.items():
        (tmp_path / f"metrics/{name}.csv").write_text(text)
    scores = {"dataset": "mnist", "disputed": 15, "loss": 0.01234, "ece": 0.005}
    write_metrics(tmp_path, "evaluate", **scores)
    write_metrics(tmp_path, "robustness", corrupt=0.025)
    write_metrics(tmp_path, "package/seed-0", train=0.98, val=0.97, val_loss=0.1)
    rows = {"none": 0.01} | dict.fromkeys(MNIST_C, 0.02) | dict.fromkeys(OTHERS, 0.5)
    rows[WORST] = 0.1
    frame = pd.DataFrame({"error": rows, "images": 50})
    frame.to_csv(tmp_path / "metrics/corruptions.csv", index_label="corruption")
    marks = "\n".join(f"{key}: <!--={key}--><!--/-->" for key in QUOTED.split())
    (tmp_path / "README.md").write_text(marks + "\nint8: <!--=int8_tflite_kB-->0<!--/--> kB\n")
    return tmp_path


def write_params(folder: Path, epochs: int = 1) -> None:
    params = {"seeds": [0], "download": {"dataset": "mnist"}, "train": {"epochs": epochs}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def write_metrics(folder: Path, name: str, **values: float | str) -> None:
    (folder / f"metrics/{name}.json").write_text(json.dumps(values))


def filled_in(folder: Path) -> str:
    """README.md as a reader sees it."""
    run_stage(card.main, folder)
    return re.sub("<!--.*?-->", "", (folder / "README.md").read_text())


def test_numbers_are_filled_in_and_checked(folder):
    text = filled_in(folder)
    for line in (
        "accuracy: 99.00 %",
        "epochs: 1 epoch\n",
        "interval: 96.43 % to 99.73 %",
        "val: 97.00 %",
        "other: 50.0 %",
        "corrupt: 2.5 %",
        "ece: 0.50 points",
        "int8: 1,340 kB",
        "classes: 6, 0\n",
        "splits: 1,100 train, 110 validation, 200 test\n",
    ):
        assert line in text
    assert "mnist: 99.00 % of 200 test images correct (2 errors;" in text
    run_stage(card.main, folder, "--check")


def test_the_worst_corruptions_are_of_those_whose_mean_is_quoted(folder):
    worst = re.search("worst: (.*)", filled_in(folder))[1]
    assert worst.startswith(f"{WORST.replace('_', ' ')} (10.0 %)")
    assert "50.0 %" not in worst


def test_without_validation_images_no_accuracy_is_quoted(folder):
    write_metrics(folder, "package/seed-0", train=0.98)
    assert "val: (no validation images)" in filled_in(folder)


def test_a_wrong_number_is_named_with_what_to_run_unless_params_differ(folder):
    filled_in(folder)
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("<!--=errors-->2", "<!--=errors-->7,654"))
    with pytest.raises(UserError, match=r"README.md: errors: .*'7,654'\n`make card`"):
        run_stage(card.main, folder, "--check")
    write_params(folder, epochs=77)
    assert "other params" in run_stage(card.main, folder, "--check")


def test_an_unknown_mark_is_refused(folder):
    with open(folder / "README.md", "a", encoding="utf-8") as file:
        file.write("<!--=beauty-->1<!--/-->")
    with pytest.raises(UserError, match=r"README.md: unknown mark 'beauty'; there are "):
        run_stage(card.main, folder)
