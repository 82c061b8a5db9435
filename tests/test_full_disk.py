"""A full disk costs nothing: one clear error, old outputs as they were, a rerun that succeeds.

Each folder that a stage writes to is put on a small file system of its own and filled up. The stage
runs without DVC, which would have removed the old outputs.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import STAGES, contents, lock_entry, run

pytestmark = pytest.mark.slow
PAGE = 4096  # bytes: the smallest piece that tmpfs gives away
OLD = b"an earlier result"
GROWING = ("filler.tmp", "curves.csv")  # curves grow while a network trains


def stage_folders() -> Iterator[tuple[str, str]]:
    """Each stage of dvc.yaml with each folder that it has outputs in."""
    for name, stage in STAGES.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        yield from ((name, folder) for folder in sorted({str(Path(path).parent) for path in paths}))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, int], None]]:
    """A function that moves a folder to a file system of its own, with little room left."""
    mounted = []

    def mount(folder: Path, room: int) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        size = sum(PAGE + path.stat().st_size for path in copy.rglob("*"))
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size + room + 16 * PAGE}", "none", folder],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            pytest.skip(f"needs leave to mount a file system: {result.stderr.strip()}")
        mounted.append(folder)
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        filler = folder / "filler.tmp"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PAGE))
            except OSError:
                file.truncate(file.tell() - room // PAGE * PAGE)

    if os.name != "posix" or not shutil.which("mount"):
        pytest.skip("needs the command mount")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("share", [0, 0.5], ids=["no room", "room for half"])
@pytest.mark.parametrize(("stage", "name"), stage_folders())
def test_a_full_disk_leaves_old_outputs_and_one_clear_error(stage, name, share, folder, small_disk):
    project, folder = folder, folder / name
    entry, outs = lock_entry(project, stage)
    listed = [project / out["path"] for out in entry["outs"]]
    expected = {path: path.read_bytes() for path in outs}
    inside = [path for path in outs if path.is_relative_to(folder)]
    room = int(share * sum(len(expected[path]) for path in inside))
    for path in outs:
        path.unlink()  # DVC may have linked it to its cache
        if path in listed:  # a folder of outputs is emptied first
            path.write_bytes(OLD)
    small_disk(folder, room)
    before = contents(folder, *GROWING)
    environment = {"PYTHONPATH": str(project)}

    command = shlex.split(entry["cmd"])
    result = run(*command, cwd=project, check=False, **environment)
    assert result.returncode == 1, result.stdout + result.stderr
    message = result.stderr.strip()
    assert message.startswith(f"error: {name}/"), message
    assert "No space left on device" in message
    assert "\n" not in message
    assert contents(folder, *GROWING) == before
    # In its other folders, too, a stage replaces all outputs or none.
    assert {path.read_bytes() for path in listed if path.is_file()} <= {OLD}

    (folder / "filler.tmp").unlink()
    subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
    run(*command, cwd=project, **environment)
    assert {path: path.read_bytes() for path in outs} == expected
    assert not list(project.rglob("*.tmp"))
