"""One network trained by several workers: the same network, and what happens when one is lost."""

import json
import random
import shutil
import signal
import socket
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, change_params, contents, prepared, run, run_stage

from stages import train
from stages.base.stage import UserError
from stages.network import saved
from stages.network.callbacks import backup_of
from tools.cluster import configurations, start

NETWORK = Path("models/trained/seed-0/network.keras")
EPOCHS = 2
# Of weights and losses after ten small steps, between one and several workers: sums in another
# order, and what grows from that. Statistics of a part of the batch, say, leave 0.05 and more.
TOLERANCE = 0.002


def together(*folders: Path, before: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """Exit code and output of a worker in each of the folders; one may occur several times."""
    configs = configurations(len(folders))
    workers = [start(*pair, 0, *before) for pair in zip(folders, configs, strict=True)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    return [(worker.returncode, output) for worker, output in zip(workers, outputs, strict=True)]


def curves(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "models/trained/seed-0/curves.csv")


def weights(folder: Path) -> list[np.ndarray]:
    return saved.load(folder / NETWORK).get_weights()


def assert_same_training(folder: Path, other: Path) -> None:
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(curves(folder)[losses], curves(other)[losses], atol=TOLERANCE)
    for found, expected in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small network can be trained; not to be changed."""
    folder = tmp_path_factory.mktemp("ready")
    rates = {"train__learning_rate": 0.01, "train__muon_learning_rate": 0.01}
    return prepared(folder, train__batch_size=256, train__epochs=EPOCHS, **rates)


@pytest.fixture(scope="module")
def alone(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after one worker has trained."""
    folder = shutil.copytree(ready, tmp_path_factory.mktemp("alone") / "folder")
    run("python", "-m", "stages.train", "--seed", "0", cwd=folder, PYTHONPATH=str(ROOT))
    return folder


@pytest.fixture
def folder(ready: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ready, tmp_path / "folder")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_train_the_network_that_one_trains(workers, alone, folder, tmp_path):
    """Each has a disk of its own, and only the first one writes to it."""
    others = [shutil.copytree(folder, tmp_path / f"other-{n}") for n in range(1, workers)]
    before = contents(folder)
    results = together(folder, *others)
    assert [code for code, _ in results] == [0] * workers, results
    assert all(output.count("epoch ") == EPOCHS for _, output in results)
    assert_same_training(folder, alone)
    assert (folder / NETWORK).is_file()
    assert not list(folder.rglob("*.npz"))  # the backup
    for other in others:
        assert contents(other) == before


@pytest.mark.slow
def test_several_gpus_of_a_host_train_the_network_that_one_trains(alone, folder):
    """TensorFlow can divide a CPU into devices; the rest is what happens with GPUs."""
    script = """
        from pathlib import Path
        from stages.base import arrays, params
        from stages.network import saved
        from stages.network.runtime import limit, tf
        from stages.network.settings import Train, folder_of
        from stages.train import train

        settings = params.load("train", Train)
        limit(settings.instructions, settings.threads)
        (cpu,) = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        splits = arrays.load_split("train"), arrays.load_split("validation")
        network = train(*splits, settings, 0, folder_of(0), strategy)
        saved.save(network, folder_of(0) / "network.keras")
    """
    lines = "\n".join(line.removeprefix(" " * 8) for line in script.splitlines())
    run("python", "-c", lines, cwd=folder, PYTHONPATH=str(ROOT))
    assert_same_training(folder, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("moment", ["start", "epoch"])
def test_the_others_end_when_one_is_killed_and_the_next_start_goes_on(
    victim, moment, alone, folder
):
    change_params(folder, train__epochs=20)  # long enough to be killed in
    workers = [start(folder, each) for each in configurations(2)]
    after = random.uniform(0, 8)  # seconds
    if moment == "epoch":
        while "epoch 2" not in workers[victim].stdout.readline():
            pass
        after = random.uniform(0, 0.5)
    time.sleep(after)
    workers[victim].send_signal(signal.SIGKILL)
    output = workers[1 - victim].communicate(timeout=60)[0]
    workers[victim].communicate()
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert (workers[1 - victim].returncode, len(errors)) == (1, 1), f"{after=}: {output}"
    assert "Traceback" not in output
    assert "start all of them again" in errors[0]
    assert not (folder / NETWORK).exists()
    backup = folder / backup_of(0)  # within the seconds of "start", some epochs may have ended, too
    epochs = len(json.loads(str(np.load(backup)["arr_1"]))) if backup.exists() else 0
    assert epochs >= (moment == "epoch")
    results = together(*[folder] * (1 if moment == "epoch" else 2))
    assert {code for code, _ in results} == {0}, results
    assert (f"going on after epoch {epochs}/20 " in results[0][1]) == (epochs > 0), results
    assert ("going on after" in results[0][1]) == (epochs > 0)
    assert len(curves(folder)) == 20


@pytest.mark.slow
def test_a_worker_that_is_lost_while_the_network_is_built_ends_the_other(folder):
    """Initial weights are sent from one to the other, so that one waits in there."""
    dies = """
        import os
        from stages import train
        from stages.network import architecture
        architecture.build = lambda *arguments: os.kill(os.getpid(), 9)
        train.main()
    """
    shell = ("sh", "-c", 'exec "$1" -c "$0" --seed 0', textwrap.dedent(dies))
    configs = configurations(2)
    start(folder, configs[1], 0, *shell)
    survivor = start(folder, configs[0])
    output = survivor.communicate(timeout=90)[0]
    assert survivor.returncode == 1, output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: another worker is gone"), output


@pytest.mark.slow
def test_workers_that_differ_do_not_begin(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    change_params(other, train__momentum=0.8)
    labels = np.load(path := other / "data/processed/train/labels.npy")
    np.save(path, labels[::-1])
    for code, output in together(folder, other):
        assert code == 1
        assert "error: the workers differ in their data and params" in output
        assert "epoch" not in output


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit limits what may be written")
def test_a_full_disk_of_the_one_that_writes_ends_all(folder):
    change_params(folder, train__epochs=30)
    before = contents(folder)
    results = together(folder, folder, before=("prlimit", "--fsize=5000"))
    (first, said), (second, heard) = results
    assert (first, second) == (1, 1)
    assert "error: .dvc/tmp/training/seed-0.npz: File too large; no output is half-written" in said
    assert "error: another worker is gone" in heard
    assert contents(folder, "curves.csv") == before


@pytest.mark.slow
def test_a_worker_that_waits_alone_says_so_and_ends(folder):
    worker = start(folder, configurations(2)[1])
    output = worker.communicate(timeout=75)[0]
    assert worker.returncode == 1
    assert "error: not all of 127.0.0.1:" in output


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nonsense", "Expecting value"),
        ("{}", "cluster"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "worker 1"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "host:port"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "found {'ps'}"),
    ],
)
def test_a_broken_tf_config_is_refused_by_one_clear_message(text, fault, folder, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as refused:
        run_stage(train.main, folder, "--seed", "0")
    assert fault in str(refused.value)
    assert '"index": 0}}' in str(refused.value)  # an example
    assert not (folder / "models").exists()


def test_a_time_to_wait_that_is_no_number_is_refused(folder, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", configurations(1)[0])
    monkeypatch.setenv("CLUSTER_START_SECONDS", "soon")
    with pytest.raises(UserError, match=r"CLUSTER_START_SECONDS: .* found 'soon'"):
        run_stage(train.main, folder, "--seed", "0")


def test_a_port_in_use_is_named(folder, monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        workers = {"chief": [f"localhost:{port}"], "worker": ["localhost:1"]}
        config = {"cluster": workers, "task": {"type": "chief", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            run_stage(train.main, folder, "--seed", "0")
