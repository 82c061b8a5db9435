"""Networks on disk: equal networks are equal files, a file gives back the network that went in, and
what is damaged, unsafe or of another shape is refused by one line that names the file.
"""

import contextlib
import io
import json
import os
import pickle
import stat
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run

from stages.base import arrays
from stages.network import saved as models
from stages.network import architecture as network
from stages.base.stage import UserError
from stages.base.params import Network
from stages.network.runtime import keras

CLASSES = 10


def small_network(classes: int = CLASSES, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = network.build(classes, Network(crop=2, filters=[3, 4, 5]))
    logits = network.averaged_logits(model, shift=1)
    probabilities = keras.layers.Softmax(name="probabilities")(logits.output)
    return keras.Model(logits.input, probabilities, name="digits_cnn")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = small_network()
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)  # no tracing
    model.fit(images(8), np.arange(8), batch_size=4, verbose=0)
    return model


def refusal(path: Path, classes: int = CLASSES) -> str:
    """The message by which `path` is refused: one line, with the file's name."""
    with pytest.raises(UserError) as caught:
        models.load(path, classes)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < len(str(path)) + 400
    return message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "seed-0.keras"
    models.save(small_network(), path)
    return path


def test_path_of_a_seed():
    assert models.path_of(17) == Path("models/seed-17.keras")


def test_saving_twice_gives_the_same_bytes(tmp_path: Path):
    model = small_network()
    models.save(model, tmp_path / "a.keras")
    models.save(model, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_equal_networks_give_the_same_bytes_wherever_they_are_in_memory(
    saved: Path, tmp_path: Path
):
    shared = keras.config.dtype_policy()  # by all layers, which Keras notes in the file
    keras.config.set_dtype_policy(keras.DTypePolicy("float32"))
    try:
        models.save(small_network(), tmp_path / "again.keras")
    finally:
        keras.config.set_dtype_policy(shared)
    assert (tmp_path / "again.keras").read_bytes() == saved.read_bytes()


def test_networks_of_the_same_shape_and_other_weights_give_other_bytes(saved: Path, tmp_path: Path):
    models.save(small_network(seed=1), tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_bytes() != saved.read_bytes()


def test_a_saved_network_predicts_as_before(trained: keras.Model, tmp_path: Path):
    models.save(trained, tmp_path / "trained.keras")
    loaded = models.load(tmp_path / "trained.keras", CLASSES)
    graph = keras.Model(trained.input, trained.output)  # `trained` itself runs eagerly
    np.testing.assert_array_equal(
        models.predict(loaded, images(20)), models.predict(graph, images(20))
    )


def test_plain_keras_can_read_the_file(saved: Path):
    loaded = keras.saving.load_model(saved)
    for one, two in zip(loaded.get_weights(), small_network().get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_saving_leaves_the_network_as_it_was(trained: keras.Model, tmp_path: Path):
    before = [value.copy() for value in trained.get_weights()]
    models.save(trained, tmp_path / "trained.keras")
    assert trained.compiled
    for one, two in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_file_holds_no_optimizer_and_no_time(trained: keras.Model, tmp_path: Path):
    path = tmp_path / "trained.keras"
    models.save(trained, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        metadata = json.loads(archive.read("metadata.json"))
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert set(metadata) == {"keras_version"}
    for word in (b"optimizer", b"adam", b"date_saved"):
        assert word not in everything.lower()
    assert not keras.saving.load_model(path).compiled


def test_predictions_are_probabilities_whatever_the_number_of_images():
    model = small_network()
    many = models.predict(model, images(models.BATCH + 1))
    assert many.shape == (models.BATCH + 1, CLASSES)
    assert many.dtype == np.float32
    np.testing.assert_allclose(many.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(models.predict(model, images(3)), many[:3], atol=1e-6)


@pytest.mark.slow
def test_predictions_of_many_networks_come_without_warnings():
    # In a process of its own: TensorFlow says what it thinks of this only once or twice.
    code = """
import numpy as np
from stages.network import saved as models
from stages.network.runtime import keras
layers = keras.layers
for _ in range(6):
    network = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(2)])
    models.predict(network, np.zeros((3, 28, 28, 1), "float32"))
"""
    result = run("python", "-c", code, cwd=ROOT)
    assert result.stdout + result.stderr == ""


def test_a_missing_file_is_refused(tmp_path: Path):
    assert "dvc repro" in refusal(tmp_path / "seed-0.keras")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"A network, they said.\n" * 40,
        lambda data: data.replace(b'"units": 10', b'"units": 11'),
        lambda data: data[:-9000] + bytes([data[-9000] ^ 255]) + data[-8999:],
    ],
    ids=["empty", "first half", "without the last byte", "text", "other config", "other weight"],
)
def test_a_damaged_file_is_refused(saved: Path, damage: Callable[[bytes], bytes]):
    saved.write_bytes(damage(saved.read_bytes()))
    refusal(saved)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda data: None),
        ("model.weights.h5", lambda data: None),
        ("config.json", lambda data: b"{"),
        ("config.json", lambda data: data.replace(b"ReLU", b"Relic")),
        ("config.json", lambda data: data.replace(b'"filters": 4', b'"filters": 6')),
        ("model.weights.h5", lambda data: data[:-100]),
    ],
    ids=["no config", "no weights", "no JSON", "unknown layer", "other sizes", "short weights"],
)
def test_an_archive_with_wrong_contents_is_refused(
    saved: Path, name: str, change: Callable[[bytes], bytes | None]
):
    with zipfile.ZipFile(saved) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    parts[name] = change(parts[name])
    with zipfile.ZipFile(saved, "w") as archive:
        for part, data in parts.items():
            if data is not None:
                archive.writestr(part, data)
    refusal(saved)


def test_a_file_that_carries_code_is_refused_and_the_code_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trace, path = tmp_path / "trace", tmp_path / "seed-0.keras"
    monkeypatch.chdir(tmp_path)
    intrude = keras.layers.Lambda(lambda x: (open("trace", "w").close(), x)[1])
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(intrude(inputs))
    keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x)).save(path)
    trace.unlink()
    message = refusal(path)
    assert "lambda" in message.lower()
    assert not trace.exists()
    keras.saving.load_model(path, safe_mode=False)  # the file is what this test takes it for
    assert trace.exists()


Parts = dict[str, bytes]  # of an archive, by name


def stored(path: Path, parts: Parts, **options: object) -> None:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def with_class(parts: Parts, **entry: object) -> Parts:
    """`parts` with one layer's config replaced."""
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= entry
    return parts | {"config.json": json.dumps(config).encode()}


def pickled() -> bytes:
    class Intruder:
        def __reduce__(self):
            return os.mkdir, ("trace",)

    return pickle.dumps(Intruder())


def h5_file(path: Path, parts: Parts) -> None:
    """The older format under the newer name, with a layer that carries code."""
    intrude = keras.layers.Lambda(lambda x: (os.mkdir("trace"), x)[1], output_shape=(28, 28, 1))
    model = keras.Sequential([keras.Input((28, 28, 1)), intrude])
    legacy = path.with_suffix(".h5")
    model.save(legacy)
    legacy.rename(path)


def symbolic_link(path: Path, parts: Parts) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name)
            if name == "model.weights.h5":
                entry.external_attr, data = (stat.S_IFLNK | 0o777) << 16, b"/etc/passwd"
            archive.writestr(entry, data)


def repeated(path: Path, parts: Parts) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in [*parts.items(), *parts.items()]:
            archive.writestr(name, data)


def zip_bomb(path: Path, parts: Parts) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in parts.items():
            if name == "model.weights.h5":
                with archive.open(name, "w", force_zip64=True) as member:
                    for _ in range(1024):
                        member.write(bytes(2**20))
            else:
                archive.writestr(name, data)


def lying_sizes(path: Path, parts: Parts) -> None:
    """Stored members, one of which is said to have 4 GB."""
    stored(path, parts)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = b"\xff\xff\xff\xfe" * 2
    path.write_bytes(data)


def weights_with(change: Callable[[object, str], None]) -> Callable[[Path, Parts], None]:
    """An archive whose first array of weights `change(group, name)` has replaced."""

    def make(path: Path, parts: Parts) -> None:
        import h5py

        weights = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(weights, "r+") as file:
            names = []
            file.visit(names.append)
            first = next(file[name] for name in names if isinstance(file[name], h5py.Dataset))
            group, name, shape = first.parent, first.name.split("/")[-1], first.shape
            del group[name]
            change(group, name, shape)
        stored(path, parts | {"model.weights.h5": weights.getvalue()})

    return make


def external(group: object, name: str, shape: tuple[int, ...]) -> None:
    """The values are those of another file of this machine."""
    Path("secret").write_bytes(bytes(4 * int(np.prod(shape))))
    group.create_dataset(name, shape, "f4", external=[("secret", 0, 4 * int(np.prod(shape)))])


def external_link(group: object, name: str, shape: tuple[int, ...]) -> None:
    import h5py

    with h5py.File("secret.h5", "w") as file:
        file["values"] = np.zeros(shape, "f4")
    group[name] = h5py.ExternalLink("secret.h5", "values")


def huge(group: object, name: str, shape: tuple[int, ...]) -> None:
    """16 GB of zeros, in a few hundred bytes."""
    group.create_dataset(name, (2**32,), "f4", chunks=(2**20,), compression="gzip")


def other_class(**entry: object) -> Callable[[Path, Parts], None]:
    return lambda path, parts: stored(path, with_class(parts, **entry))


def extra(name: str) -> Callable[[Path, Parts], None]:
    return lambda path, parts: stored(path, parts | {name: b"trace"})


HOSTILE = {
    "h5 by the name of keras": h5_file,
    "pickle": lambda path, parts: path.write_bytes(pickled()),
    "pickle for config": lambda path, parts: stored(path, parts | {"config.json": pickled()}),
    "pickle for weights": lambda path, parts: stored(path, parts | {"model.weights.h5": pickled()}),
    "module os": other_class(module="os", class_name="mkdir", config={"path": "trace"}),
    "module builtins": other_class(
        module="builtins", class_name="exec", config={"source": "import os; os.mkdir('trace')"}
    ),
    "function": other_class(module="builtins", class_name="function", config="exec"),
    "registered name": other_class(registered_name="os>mkdir"),
    "module of the folder": other_class(module="intruder", class_name="Intruder"),
    "module that Keras imports by its name": other_class(module="keras_nlp", class_name="Intruder"),
    "no module": other_class(module=None),
    "module of Keras that is no layer": other_class(
        module="keras.utils", class_name="get_file", config={"origin": "file:///etc/passwd"}
    ),
    "layer that reads a file": other_class(
        class_name="StringLookup", config={"vocabulary": "/etc/passwd", "name": "crop"}
    ),
    "layer that loads TensorFlow's own format": other_class(
        class_name="TFSMLayer", config={"filepath": "model", "name": "crop"}
    ),
    "path upwards": extra("../trace"),
    "absolute path": lambda path, parts: extra(f"{Path.cwd()}/trace")(path, parts),
    "extra member": extra("assets/vocabulary.txt"),
    "extra code": extra("intruder.py"),
    "symbolic link": symbolic_link,
    "members twice": repeated,
    "compressed": lambda path, parts: stored(path, parts, compression=zipfile.ZIP_DEFLATED),
    "zip bomb": zip_bomb,
    "lying sizes": lying_sizes,
    "weights of another file": weights_with(external),
    "weights by a link to another file": weights_with(external_link),
    "weights that unpack to 16 GB": weights_with(huge),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_unread_and_unrun(
    make: Callable[[Path, Parts], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, int], None],
):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.syspath_prepend(inside)
    for name in ("intruder.py", "keras_nlp.py"):
        Path(name).write_text("import os\nos.mkdir('trace')\n")
    path = Path("seed-0.keras")
    models.save(small_network(), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    make(path, parts)
    before = sorted(tmp_path.rglob("*"))
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert sorted(tmp_path.rglob("*")) == before, "something was run or unpacked"
    record_property("hostile models refused", 1)


def test_the_hostile_files_differ_from_a_good_one_only_in_what_they_carry(saved: Path):
    """Put together as they are, but with nothing hostile in it, a file is taken."""
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    stored(saved, with_class(parts))
    models.load(saved, CLASSES)
    weights_with(lambda group, name, shape: group.create_dataset(name, shape, "f4"))(saved, parts)
    models.load(saved, CLASSES)


def test_an_array_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    class Intruder:
        def __reduce__(self):
            return os.mkdir, ("trace",)

    np.save("train_images.npy", np.array([Intruder()], object), allow_pickle=True)
    Path("renamed.npy").write_bytes(pickled())
    np.savez("archive.npz", images=np.zeros(3))
    Path("archive.npz").rename("archive.npy")
    for name in ("train_images.npy", "renamed.npy", "archive.npy"):
        with pytest.raises(UserError, match=name):
            arrays.load(Path(name))
    assert not Path("trace").exists()
    np.load("train_images.npy", allow_pickle=True)  # the file is what this test takes it for
    assert Path("trace").exists()


@pytest.mark.parametrize("classes", [9, 11])
def test_a_network_of_another_number_of_classes_is_refused(tmp_path: Path, classes: int):
    path = tmp_path / "seed-0.keras"
    models.save(small_network(classes), path)
    message = refusal(path)
    assert str(classes) in message
    assert str(CLASSES) in message
    models.load(path, classes)


def test_a_network_of_other_inputs_is_refused(tmp_path: Path):
    path = tmp_path / "seed-0.keras"
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalMaxPooling2D()(inputs)
    models.save(keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x)), path)
    assert "32" in refusal(path)


@contextlib.contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: to a writer, the disk is full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("existing", "room"), [(True, 0.0), (True, 0.99), (False, 0.5)], ids=["none", "little", "some"]
)
def test_a_failing_save_changes_nothing(tmp_path: Path, existing: bool, room: float):
    folder = tmp_path / "models"
    path = folder / "seed-0.keras"
    models.save(small_network(), path)
    earlier = {path.name: path.read_bytes()} if existing else {}
    size = int(room * path.stat().st_size)
    if not existing:
        path.unlink()
    other = small_network(seed=1)
    with contextlib.redirect_stdout(io.StringIO()), files_limited_to(size):  # noqa: SIM117
        with pytest.raises(OSError):  # noqa: PT011
            models.save(other, path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == earlier
    models.save(other, path)
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_a_failing_rename_changes_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch):
    earlier = saved.read_bytes()

    def refuse(source, target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError):
        models.save(small_network(seed=1), saved)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == earlier
