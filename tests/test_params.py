"""params.yaml: each wrong edit stops every stage at once, with a line that names the key."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, run

from stages.base import params
from stages.base.stage import UserError

PROJECT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SECTIONS = ("download", "preprocess", "train", "evaluate", "robustness")
OUT_OF_RANGE = {
    "preprocess.validation_size": [-1, -0.1, 0.0, 1.0, 1.5, math.nan, math.inf],
    "preprocess.seed": [-1, 2**31],
    "train.epochs": [0, -3, 10_001],
    "train.batch_size": [1, 0, -256, 1_000_001],
    "train.learning_rate": [0.0, 0, -0.1, math.nan, math.inf],
    "train.muon_learning_rate": [0.0, -0.1, math.nan, math.inf],
    "train.momentum": [-0.1, 1.0, 1, math.nan, -math.inf],
    "train.warmup": [-0.1, 1.0, math.nan, math.inf],
    "train.weight_decay": [-1.0e-4, math.nan, math.inf],
    "train.label_smoothing": [-0.1, 1.0, math.nan, math.inf],
    "train.average_shift": [-1, 15],
    "train.network.crop": [-1, 7],
    "train.augment.rotation": [-1, 181, math.nan, math.inf],
    "train.augment.shift": [-1, 15, math.nan, math.inf],
    "train.augment.zoom": [-0.1, 1.0, math.nan, math.inf],
    "train.augment.shear": [-0.1, 1.0, math.nan, math.inf],
    "evaluate.samples": [0, 21],
    "evaluate.mistakes": [0, 401],
    "evaluate.uncertain": [0, 401],
    "evaluate.seed": [-1, 2**31],
    "robustness.images": [0, -1],
    "robustness.seed": [-1, 2**31],
}
WRONG_TYPE = {
    "download.dataset": [5, None, ["mnist"], True],
    "preprocess.validation_size": ["0.1", True, None, [1]],
    "preprocess.seed": ["0", 0.0, False, None],
    "train.epochs": ["eight", "8", 8.0, 8.5, True, None],
    "train.batch_size": ["256", 256.0, True],
    "train.learning_rate": ["fast", True, None, [0.1]],
    "train.muon_learning_rate": ["fast", True],
    "train.momentum": ["0.9", False],
    "train.warmup": ["0.2", False],
    "train.weight_decay": ["none", False],
    "train.label_smoothing": ["0.1", False],
    "train.average_shift": [0.5, "1", True],
    "train.network.crop": ["2", 2.0, True],
    "train.augment.rotation": ["10 degrees", True],
    "train.augment.shift": ["2", True],
    "train.augment.zoom": ["0.1", True],
    "train.augment.shear": ["0.1", True],
    "evaluate.samples": ["5", 5.0, True],
    "evaluate.mistakes": ["60", 60.0, True],
    "evaluate.uncertain": ["20", 20.0, None],
    "evaluate.seed": ["0", 0.0, False],
    "robustness.images": ["100", 100.0, True],
    "robustness.seed": ["0", 0.0, False],
}
LISTS = [  # the key, its value, the key that the message names, what the message says was found
    ("train.seeds", [], "train.seeds", "[]"),
    ("train.seeds", [0, 1, 0], "train.seeds", "[0, 1, 0]"),
    ("train.seeds", 0, "train.seeds", "0"),
    ("train.seeds", "0", "train.seeds", "'0'"),
    ("train.seeds", [0, "1"], "train.seeds.1", "'1'"),
    ("train.seeds", [0, 1.0], "train.seeds.1", "1.0"),
    ("train.seeds", [True], "train.seeds.0", "True"),
    ("train.seeds", [0, 1, -1], "train.seeds.2", "-1"),
    ("train.seeds", [2**31], "train.seeds.0", "2147483648"),
    ("train.network.filters", [], "train.network.filters", "[]"),
    ("train.network.filters", [32, 64], "train.network.filters", "[32, 64]"),
    ("train.network.filters", 32, "train.network.filters", "32"),
    ("train.network.filters", [32, 64, 0], "train.network.filters.2", "0"),
    ("train.network.filters", [32, 1025, 64], "train.network.filters.1", "1025"),
    ("train.network.filters", [32.0, 64, 64], "train.network.filters.0", "32.0"),
]
WRONG_VALUES = [
    (key, value, key, repr(value))
    for table in (OUT_OF_RANGE, WRONG_TYPE)
    for key, values in table.items()
    for value in values
] + LISTS
LIMITS = [  # the last values that are still allowed
    ("preprocess.validation_size", 0),
    ("preprocess.validation_size", 0.999),
    ("preprocess.seed", 2**31 - 1),
    ("train.seeds", [2**31 - 1, 0]),
    ("train.epochs", 1),
    ("train.batch_size", 2),
    ("train.momentum", 0),
    ("train.momentum", 0.999),
    ("train.warmup", 0),
    ("train.weight_decay", 0),
    ("train.label_smoothing", 0),
    ("train.average_shift", 0),
    ("train.average_shift", 14),
    ("train.network.crop", 0),
    ("train.network.crop", 6),
    ("train.network.filters", [1, 1024, 1]),
    ("train.augment.rotation", 0),
    ("train.augment.rotation", 180),
    ("train.augment.shift", 14),
    ("train.augment.zoom", 0),
    ("train.augment.shear", 0.99),
    ("evaluate.samples", 1),
    ("evaluate.samples", 20),
    ("evaluate.mistakes", 1),
    ("evaluate.mistakes", 400),
    ("robustness.images", 1),
]


def leaves(values: dict, prefix: str = "") -> Iterator[str]:
    """The keys of all values that are no sections, with dots."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def set_value(folder: Path, key: str, value: object) -> None:
    change_params(folder, **{key.replace(".", "__"): value})


def get_value(settings: params.Params, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def edit(folder: Path, old: str, new: str) -> None:
    """Change params.yaml as an editor does: as text."""
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def remove(folder: Path, key: str) -> None:
    path = folder / "params.yaml"
    values = section = yaml.safe_load(path.read_text(encoding="utf-8"))
    *sections, last = key.split(".")
    for name in sections:
        section = section[name]
    del section[last]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def refusal() -> str:
    """The one line with which params.yaml is refused."""
    with pytest.raises(UserError) as caught:
        params.load()
    message = str(caught.value)
    assert message.startswith("params.yaml")
    assert "\n" not in message
    return message


def test_params_of_the_project_load_as_they_are_written():
    assert params.load(ROOT / "params.yaml").model_dump() == PROJECT


def test_tables_of_this_file_cover_every_key():
    assert {key for key, *_ in WRONG_VALUES} == set(leaves(PROJECT))
    assert set(OUT_OF_RANGE) == set(leaves(PROJECT)) - {
        "download.dataset",
        "train.seeds",
        "train.network.filters",
    }


@pytest.mark.parametrize(("key", "value", "named", "found"), WRONG_VALUES, ids=str)
def test_wrong_value_is_refused_by_key_and_value(key, value, named, found, workspace):
    set_value(workspace, key, value)
    message = refusal()
    assert message.startswith(f"params.yaml: {named}: ")
    assert f"found {found}" in message
    assert message.count("found") == 1, "one mistake, yet several complaints"


@pytest.mark.parametrize(("key", "value"), LIMITS, ids=str)
def test_value_at_its_limit_is_taken(key, value, workspace):
    set_value(workspace, key, value)
    assert get_value(params.load(), key) == value


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["weight_decay", "label_smoothing"])
def test_yaml_for_nan_and_infinity_is_refused(key, text, workspace):
    edit(workspace, f"  {key}: ", f"  {key}: {text}  # ")
    assert f"train.{key}: " in refusal()


@pytest.mark.parametrize("text", ["1e-4", "5E-4", "1e3"])
def test_number_that_yaml_reads_as_text_is_explained(text, workspace):
    edit(workspace, "  weight_decay: ", f"  weight_decay: {text}  # ")
    message = refusal()
    assert f"train.weight_decay: Input should be a valid number, found '{text}'" in message
    assert "write 1.0e-4" in message


def test_text_is_not_mistaken_for_a_number_without_a_dot(workspace):
    set_value(workspace, "train.weight_decay", "none")
    assert "1.0e-4" not in refusal()


@pytest.mark.parametrize("section", [None, *SECTIONS, "train.network", "train.augment"])
def test_unknown_key_is_refused_at_every_level(section, workspace):
    key = f"{section}.epoch" if section else "epoch"
    set_value(workspace, key, 1)
    assert refusal() == f"params.yaml: {key}: unknown key"


@pytest.mark.parametrize("key", [*leaves(PROJECT)])
def test_missing_key_is_named(key, workspace):
    remove(workspace, key)
    assert refusal() == f"params.yaml: {key}: missing"


@pytest.mark.parametrize("section", [*SECTIONS, "train.network", "train.augment"])
def test_missing_section_is_named(section, workspace):
    remove(workspace, section)
    assert refusal() == f"params.yaml: {section}: missing"


@pytest.mark.parametrize("value", [None, 5, "epochs", [1]])
def test_section_that_is_no_section_is_named(value, workspace):
    set_value(workspace, "train.augment", value)
    assert refusal().startswith("params.yaml: train.augment: ")


def test_all_mistakes_are_told_at_once(workspace):
    set_value(workspace, "preprocess.seed", "x")
    set_value(workspace, "train.epochs", 0)
    set_value(workspace, "evaluate.sample", 3)
    message = refusal()
    for key in ("preprocess.seed", "train.epochs", "evaluate.sample"):
        assert f"{key}: " in message


@pytest.mark.parametrize(
    "text",
    ["", "# nothing but a comment\n", "- download\n- train\n", "just text", "42", "null", "{}"],
)
def test_file_that_holds_no_sections_is_refused(text, workspace):
    Path("params.yaml").write_text(text)
    refusal()


@pytest.mark.parametrize(
    "content",
    [
        b"train: [1, 2",
        b"train: {epochs: 1",
        b"a: b: c",
        b"\ttrain:\n",
        b"train: *missing",
        b"? [a]\n: 1",
        b"\xff\xfe\x00train",
        b"day: 2024-99-99",
        b"a: \x00",
        b"[" * 600,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_yaml_is_refused(content, workspace):
    Path("params.yaml").write_bytes(content)
    assert "YAML" in refusal()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/new:os.mkdir [made]",
        "!!python/object/apply:os.mkdir [made]",
    ],
)
def test_yaml_cannot_make_objects(tag, workspace):
    edit(workspace, "  epochs: ", f"  epochs: {tag}  # ")
    assert "YAML" in refusal()
    assert not Path("made").exists()


def test_missing_file_is_named(workspace):
    Path("params.yaml").unlink()
    assert "not found" in refusal()


def test_settings_cannot_be_changed_by_a_stage(workspace):
    settings = params.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.train.epochs = 1


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [("download", "evaluate.samples", 0), ("preprocess", "train.epochs", "x")],
)
def test_stage_refuses_a_mistake_in_another_section_before_any_work(stage, key, value, workspace):
    set_value(workspace, key, value)
    result = run(
        "python", "-m", f"stages.{stage}", cwd=workspace, check=False, PYTHONPATH=str(ROOT)
    )
    assert result.returncode == 1
    assert re.fullmatch(f"error: params.yaml: {re.escape(key)}: .+\n", result.stderr)
    assert result.stdout == ""
    assert [path.name for path in workspace.iterdir()] == ["params.yaml"]
