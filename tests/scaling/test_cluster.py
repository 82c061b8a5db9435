"""One model trained by several workers: it is the same model, and what happens when one is lost."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, change_params, contents, prepared, run

from stages.base.data import curves_of, trained_model
from stages.base.stage import UserError
from stages.network import cluster, saved
from tools.cluster import configurations

MODEL, CURVES = trained_model(0), curves_of(0)
TRAIN = "from stages import train; train.run_stage(train.main)"
# Of weights and losses after ten small steps, between one and several workers: sums in another
# order, and what grows from that. Statistics of a part of the batch, say, leave 0.05 and more.
TOLERANCE = 0.002


def start(folder: Path, config: str, code: str = TRAIN) -> subprocess.Popen:
    environment = os.environ | {"TF_CONFIG": config, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "--seed", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def together(*folders: Path) -> list[tuple[int, str]]:
    """Exit code and output of a worker in each of the folders; one may occur several times."""
    workers = [start(*pair) for pair in zip(folders, configurations(len(folders)), strict=True)]
    outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    return [(worker.returncode, output) for worker, output in zip(workers, outputs, strict=True)]


def assert_same_training(folder: Path, other: Path) -> None:
    curves, others = (pd.read_csv(each / CURVES).filter(like="loss") for each in (folder, other))
    np.testing.assert_allclose(curves, others, atol=TOLERANCE)
    weights, others = (saved.load(each / MODEL).get_weights() for each in (folder, other))
    for found, expected in zip(weights, others, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small model can be trained for ten steps; not to be changed."""
    rates = {"train__learning_rate": 0.01, "train__muon_learning_rate": 0.01}
    return prepared(tmp_path_factory.mktemp("ready"), train__batch_size=256, **rates)


@pytest.fixture(scope="module")
def alone(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after one worker has trained."""
    folder = shutil.copytree(ready, tmp_path_factory.mktemp("alone") / "folder")
    run("python", "-c", TRAIN, "--seed", "0", cwd=folder, PYTHONPATH=str(ROOT))
    return folder


@pytest.fixture
def folder(ready: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ready, tmp_path / "folder")


@pytest.mark.slow
def test_two_workers_train_the_model_that_one_trains(alone: Path, folder: Path, tmp_path: Path):
    """Each has a disk of its own, and only the first one writes to it."""
    before = contents(other := shutil.copytree(folder, tmp_path / "other"))
    results = together(folder, other)
    assert [code for code, _ in results] == [0, 0], results
    assert_same_training(folder, alone)
    assert contents(other) == before


@pytest.mark.slow
def test_several_gpus_of_a_host_train_the_model_that_one_trains(alone: Path, folder: Path):
    """TensorFlow can divide a CPU into devices; the rest is what happens with GPUs."""
    divided = """
from contextlib import nullcontext
from stages.network import cluster
from stages.network.runtime import tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
devices = ["CPU:0", "CPU:1"]
cluster.joined = lambda batch_size: nullcontext(tf.distribute.MirroredStrategy(devices))
"""
    run("python", "-c", divided + TRAIN, "--seed", "0", cwd=folder, PYTHONPATH=str(ROOT))
    assert_same_training(folder, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_ends_and_the_next_start_goes_on(victim: int, folder: Path):
    change_params(folder, train__epochs=8)  # long enough to be killed in
    workers = [start(folder, config) for config in configurations(2)]
    while "epoch 2" not in workers[victim].stdout.readline():
        pass
    time.sleep(random.Random(victim).uniform(0, 0.5))
    workers[victim].kill()
    output = workers[1 - victim].communicate(timeout=300)[0]
    workers[victim].communicate()
    assert workers[1 - victim].returncode == 1
    (fault,) = re.findall("^error: .*$", output, re.MULTILINE)
    assert re.match(r"error: another worker is gone \(.{4,70}[^:]\): start all", fault), fault
    assert not (folder / MODEL).exists()
    epochs = len(pd.read_csv(folder / CURVES))
    for code, said in together(folder, folder):
        assert code == 0
        assert f"going on after epoch {epochs}/8 " in said
    assert len(pd.read_csv(folder / CURVES)) == 8


@pytest.mark.slow
def test_workers_that_differ_do_not_begin(folder: Path, tmp_path: Path):
    other = shutil.copytree(folder, tmp_path / "other")
    change_params(other, train__network__filters=[4, 8, 16])
    labels = np.load(path := other / "data/processed/train/labels.npy")
    np.save(path, labels[::-1])
    for code, output in together(folder, other):
        assert code == 1
        assert output.splitlines()[-1].startswith("error: the workers differ in their data and pa")


@pytest.mark.slow
def test_a_worker_does_not_wait_for_ever(folder: Path):
    impatient = "from stages.network import cluster; cluster.START = 3\n" + TRAIN
    worker = start(folder, configurations(2)[1], impatient)
    output = worker.communicate(timeout=300)[0]
    assert worker.returncode == 1
    assert output.splitlines()[-1] == "waiting at most 3 seconds for all workers to start"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nonsense", "Expecting value"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "task_id` 1"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "'ps'"),
    ],
)
def test_a_broken_tf_config_is_refused(text: str, fault: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=f"TF_CONFIG: .*{fault}"), cluster.joined(256):
        pass


def test_the_launcher_names_all_workers_to_each_and_ends_them_when_one_fails():
    show = (
        "import json, os; config = json.loads(os.environ['TF_CONFIG']); print(json.dumps(config))"
    )
    first_fails = "; import time; time.sleep(60 * config['task']['index']); 1 / 0"
    command = ("python", "-m", "tools.cluster", "--workers", "2", sys.executable, "-c")
    shown = run(*command, show, cwd=ROOT).stdout.splitlines()
    configs = [json.loads(line.partition(" | ")[2]) for line in sorted(shown)]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": number} for number in (0, 1)
    ]
    assert len(set(configs[0]["cluster"]["worker"])) == 2
    assert configs[0]["cluster"] == configs[1]["cluster"]
    failed = run(*command, show + first_fails, cwd=ROOT, check=False)
    assert failed.returncode == 1
    assert failed.stderr == "error: the workers ended with the exit codes [1, -15]: see above\n"
