"""The model card: it is what the committed metrics yield, and states the numbers it is given."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, change_params, run

from tools import card
from tools import compare
from stages.base import params
from stages.base.stage import UserError, run_stage

METRICS = {
    "dataset": "digits",
    "test_images": 360,
    "networks": 1,
    "accuracy": 0.9525,
    "accuracy_95": {"low": 0.9251, "high": 0.9702},
    "errors": 17,
    "loss": 0.23456,
    "brier_score": 0.0789,
    "calibration_error": 0.0321,
    "recall": {"macro": 0.1, "0": 1.0, "1": 0.9, "2": 0.8123, "3": 0.7456},
    "confusions": {"3 read as 2": 6, "2 read as 1": 4},
}
ROBUSTNESS = {
    "dataset": "digits",
    "images": 360,
    "networks": 1,
    "accuracy": 0.9525,
    "mean_error": 0.2345,
    "corruptions": {
        "shot_noise": {"accuracy": 0.9, "errors": 36},
        "fog": {"accuracy": 0.1111, "errors": 320},
        "stripe": {"accuracy": 0.6, "errors": 144},
        "motion_blur": {"accuracy": 0.5, "errors": 180},
    },
}


@pytest.fixture
def project(workspace: Path) -> Path:
    """A folder with made-up metrics of `digits` and a README that has a place for the card."""
    (workspace / "metrics").mkdir()
    (workspace / compare.METRICS).write_text(json.dumps(METRICS), encoding="utf-8")
    readme = "# Title\n\n<!-- written by `make card` -->\n<!-- end of the card -->\n\n## After\n"
    (workspace / "README.md").write_text(readme, encoding="utf-8")
    return workspace


def written(project: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr("sys.argv", ["card", *arguments])
    card.main()
    return (project / "README.md").read_text(encoding="utf-8")


def words(text: str) -> str:
    """Without line breaks, which may fall anywhere."""
    return " ".join(text.split())


def test_the_readme_has_the_card_of_the_committed_metrics(tmp_path):
    """Of those in Git, since the folder's own may be of a run that someone is trying out."""
    tracked = run("git", "ls-tree", "--name-only", "HEAD", "metrics/", cwd=ROOT, check=False)
    if tracked.returncode:
        pytest.skip("this folder has no Git history to compare with")

    def committed(path: Path | str) -> str:
        return run("git", "show", f"HEAD:{Path(path).as_posix()}", cwd=ROOT).stdout

    (tmp_path / "params.yaml").write_text(committed("params.yaml"), encoding="utf-8")
    has_robustness = card.ROBUSTNESS.as_posix() in tracked.stdout.split()
    expected = card.card(
        json.loads(committed(compare.METRICS)),
        json.loads(committed(card.ROBUSTNESS)) if has_robustness else None,
        params.load(tmp_path / "params.yaml"),
    )
    section = card.SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert section, "README.md has lost the marks around the card"
    assert section.group().strip() == expected.strip(), "run `make card`"


def test_states_the_numbers_of_the_run(project, monkeypatch):
    text = words(written(project, monkeypatch))
    for part in (
        *("95.25 %", "92.51 % to 97.02 %", "| 17 |", "0.2346 nats", "0.0789", "3.21 points"),
        *("digits (CC BY 4.0): 1,293 images", "144 more", "360 test images", "10 classes"),
        *("3 read as 2 (6 times), 2 read as 1 (4 times)", "3 (74.56 %) and 2 (81.23 %)"),
    ):
        assert part in text
    for part in ("disputed", "doubt", "corrupted", "temperature", "alone"):
        assert part not in text, "not measured"
    assert text.startswith("# Title <!--")
    assert text.endswith("--> ## After")


def test_number_of_parameters_is_that_of_the_network(project, monkeypatch):
    change_params(project, train__network__filters=[4, 8, 8])
    kernels = 5 * 5 * 1 * 4 + 3 * 3 * 4 * 8 + 3 * 3 * 8 * 8
    normalisation = 4 * (4 + 8 + 8)
    classifier = 8 * 10 + 10
    assert f"{kernels + normalisation + classifier:,} parameters" in words(
        written(project, monkeypatch)
    )


def test_states_what_else_was_measured(project, monkeypatch):
    more = {
        "accuracy_undisputed": 0.9611,
        "calibration_error_unscaled": 0.0944,
        "networks": 3,
        "mean": {"accuracy": 0.9444},
        "std": {"accuracy": 0.0055},
    }
    (project / compare.METRICS).write_text(json.dumps(METRICS | more), encoding="utf-8")
    (project / card.ROBUSTNESS).write_text(json.dumps(ROBUSTNESS), encoding="utf-8")
    text = words(written(project, monkeypatch))
    for part in (
        *("96.11 %", "3.21 points, 9.44 before temperature scaling", "accuracy of 3 averaged"),
        *("mean 94.44 %, standard deviation 0.55 points", "the error is 23.45 % on average"),
        "lowest under fog (11.11 %), motion blur (50.00 %), stripe (60.00 %).",
    ):
        assert part in text


def test_robustness_of_another_dataset_does_not_count(project, monkeypatch):
    robustness = json.dumps(ROBUSTNESS | {"dataset": "mnist"})
    (project / card.ROBUSTNESS).write_text(robustness, encoding="utf-8")
    assert "corrupted" not in written(project, monkeypatch)


def test_check_finds_drift_and_changes_nothing(project, monkeypatch):
    text = written(project, monkeypatch)
    assert written(project, monkeypatch) == text, "written twice, it is the same"
    written(project, monkeypatch, "--check")
    (project / compare.METRICS).write_text(json.dumps(METRICS | {"errors": 16}), encoding="utf-8")
    with pytest.raises(UserError, match="make card"):
        written(project, monkeypatch, "--check")
    assert (project / "README.md").read_text(encoding="utf-8") == text


def test_params_of_another_dataset_are_refused(project, monkeypatch):
    change_params(project, download__dataset="kmnist")
    with pytest.raises(UserError, match="is of digits, params.yaml of kmnist"):
        written(project, monkeypatch)


def test_a_readme_without_a_place_for_it_is_refused(project, monkeypatch):
    (project / "README.md").write_text("# Title\n", encoding="utf-8")
    with pytest.raises(UserError, match="written by `make card`"):
        written(project, monkeypatch)


def test_drift_ends_the_program_with_one_line(project, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["card", "--check"])
    with pytest.raises(SystemExit) as end:
        run_stage(card.main)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: README.md")
