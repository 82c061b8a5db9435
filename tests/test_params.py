"""params.yaml and the installed packages: each wrong edit stops at once, with one line."""

import math
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, change_params, leaves

from benchmarks import bench
from stages import download, train
from stages.base import params, versions
from stages.base.stage import UserError

PHOTOMETRIC = [f"train.photometric.{name}" for name in PARAMS["train"]["photometric"]]
SHARES = "train.momentum train.warmup train.label_smoothing train.augment.zoom train.augment.shear"
WRONG = {  # by key, values out of range or of a type that is nearly right
    "download.dataset": [5, ["mnist"]],
    "download.size": [15, 129, 64.0],
    "download.colour": ["yes", 1, 0],
    "download.fit": ["stretch", 1],
    "download.unreadable": [-0.1, 1.1],
    "preprocess.test_size": [-0.1, 1.0, 5000],
    "preprocess.validation_size": [-0.1, 1.0, 1.5, 5000],
    "train.epochs": [0, -3, 10_001, "eight", 8.0],
    "train.batch_size": [1, 0, 1_000_001, 256.0],
    "train.least_steps": [0, 2.0],
    "train.patience": [-1, 2.0],
    "train.class_weights": ["equal", 1],
    "train.augment.flip": [1, "yes"],
    "train.weight_decay": [-1.0e-4, math.inf],
    "train.instructions": ["AVX2", "avx", 512],
    "train.threads": [0, -1, 1025, 2.0, "all"],
    "train.network.crop": [-1, 2.0],
    "train.network.filters": [[], [32, 64], 32],
    "train.augment.rotation": [-1, 181],
    "train.augment.shift": [-1, math.inf],
    "package.average_shift": [-1, 0.5],
    "evaluate.samples": [0, 21, 5.0],
    "evaluate.misclassified": [0, 401, 60.0],
    "robustness.images": [0, -1, 100.0],
    "seeds": [[], 0, 3, [0, 1, 0]],
    **dict.fromkeys(SHARES.split(), [-0.1, 1.0]),
    **dict.fromkeys(PHOTOMETRIC, [-0.1, 1.1, math.inf]) | {"train.photometric.full_until": [1.0]},
    **dict.fromkeys(["train.learning_rate", "train.muon_learning_rate"], [0.0, -0.1, math.inf]),
    **{f"{stage}.seed": [-1, 2**31, 0.0] for stage in ("preprocess", "evaluate", "robustness")},
}
NEVER = ["0", None, math.nan]  # for no key; nor a truth value but for two
RIGHT = [  # the last values that are still allowed
    {"preprocess__validation_size": 0, "train__batch_size": 2, "seeds": [2**31 - 1, 0]},
    {"train__momentum": 0, "train__warmup": 0, "train__epochs": 1},
    {"train__network__filters": [1, 1024, 1], "train__augment__rotation": 180},
    {"package__average_shift": 14, "evaluate__samples": 20, "robustness__images": 1},
    {"train__photometric__at_end": 1, "preprocess__seed": 2**31 - 1},
]


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace


def refusal() -> str:
    """The one line with which the first stage stops, before it writes anything."""
    with pytest.raises(UserError) as caught:
        download.main()
    assert "\n" not in str(caught.value)
    assert not Path("data").exists()
    return str(caught.value)


def test_tables_of_this_file_cover_every_key():
    assert set(WRONG) == set(leaves(PARAMS))


WRONG = {
    key: values + NEVER + ([] if key in ("download.colour", "train.augment.flip") else [True])
    for key, values in WRONG.items()
}
WRONG["download.dataset"].remove("0")  # which could be a dataset's name


@pytest.mark.parametrize("turn", range(max(map(len, WRONG.values()))))
def test_wrong_values_are_all_told_at_once_by_key(turn, folder):
    """In each turn another wrong value of every key; each is one mistake and one complaint."""
    change_params(folder, **{key: values[turn % len(values)] for key, values in WRONG.items()})
    complaints = refusal().removeprefix("params.yaml: ").split("; ")
    assert sorted(complaint.partition(": ")[0] for complaint in complaints) == sorted(WRONG)
    assert all("found" in complaint for complaint in complaints)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("seeds", [0, "1"], "seeds.1: Input should be a valid integer, found '1'"),
        ("seeds", [0, 1, -1], "seeds.2: Input should be greater than or equal to 0, found -1"),
        ("train.network.filters", [32, 1025, 64], "train.network.filters.1: "),
        ("train.epoch", 3, "train.epoch: unknown key"),
        ("trian", {}, "trian: unknown key"),
        ("train.augment", None, "train.augment: "),
        (
            "download.dataset",
            "mnits",
            "download.dataset: expected one of mnist, fashion_mnist, kmnist, digits",
        ),
    ],
)
def test_the_message_names_the_place(key, value, named, folder):
    change_params(folder, **{key: value})
    assert refusal().startswith(f"params.yaml: {named}")


@pytest.mark.parametrize("values", RIGHT)
def test_values_at_their_limits_are_accepted(values, folder):
    change_params(folder, **values)
    params.load()


def test_a_missing_key_is_named(folder):
    """None has a value that is taken in its place."""
    empty = {key: {} if isinstance(value, dict) else value for key, value in PARAMS.items()}
    del empty["seeds"]
    (folder / "params.yaml").write_text(yaml.safe_dump(empty), encoding="utf-8")
    message = refusal()
    sections = {name for name, value in PARAMS["train"].items() if isinstance(value, dict)}
    for key in leaves(PARAMS):
        parts = key.split(".")
        named = ".".join(parts[:2]) if len(parts) > 2 and parts[1] in sections else key
        assert f"{named}: missing" in message


def test_a_number_that_yaml_takes_for_text_is_explained(folder):
    change_params(folder, train__weight_decay="1e-4")
    assert "train.weight_decay: Input should be a valid number, found '1e-4'" in refusal()
    assert "write 1.0e-4" in refusal()


@pytest.mark.parametrize("text", ["", "- a\n", "42", "train: [1, 2", "a: b: c", "\ttrain:\n"])
def test_what_holds_no_params_is_refused(text, folder):
    (folder / "params.yaml").write_text(text)
    assert refusal().startswith("params.yaml")


def test_a_missing_file_is_named_and_yaml_cannot_make_objects(folder):
    (folder / "params.yaml").unlink()
    assert "params.yaml not found" in refusal()
    (folder / "params.yaml").write_text("train: !!python/object/apply:os.mkdir [made]\n")
    assert "YAML" in refusal()
    assert not Path("made").exists()


# --- Packages


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of pins in place of the project's."""
    monkeypatch.setattr(versions, "PINS", tmp_path / "versions.txt")
    return tmp_path / "versions.txt"


def test_the_installed_packages_are_those_pinned():
    versions.check()


def test_markers_choose_the_pin_for_this_python(pins):
    installed = metadata.version("numpy")
    lines = "numpy==0.1 ; python_version < '3'", f"numpy=={installed} ; python_version >= '3'"
    pins.write_text("\n".join(lines))
    versions.check()


@pytest.mark.parametrize("build", ["tensorflow", "tensorflow_cpu"])
def test_either_build_of_tensorflow_will_do_in_no_other_version(pins, build, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    note = tmp_path / f"{build}-1.15.0.dist-info/METADATA"
    note.parent.mkdir()
    note.write_text(f"Name: {build}\nVersion: 1.15.0\n")
    pins.write_text("tensorflow==1.15.0\n")
    versions.check()
    assert bench.machine().endswith("TensorFlow 1.15.0")
    pins.write_text("tensorflow==1.16.0\n")
    with pytest.raises(UserError, match=r"expected tensorflow 1\.16\.0, found 1\.15\.0"):
        versions.check()
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match="found none"):
        versions.check()


def test_train_refuses_other_versions(workspace, pins, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", "--seed", "0"])
    pins.write_text("keras==0.1\n")
    with pytest.raises(UserError, match=r"expected keras 0\.1"):
        train.main()
