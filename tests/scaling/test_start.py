"""What starts a training on a cluster: each worker gets its TF_CONFIG, and the right command.

Of Slurm there are stand-ins: a real one needs as many hosts as the job has nodes.
"""

import json
import sys
from pathlib import Path

from conftest import ROOT, run

CLUSTER = ROOT / "docs/cluster"
SCONTROL = """#!/bin/sh
test "$*" = "show hostnames node[1-2]" && printf 'node1\\nnode2\\n'
"""
SRUN = """#!/bin/sh
while [ "$1" != bash ]; do shift; done
for task in 0 1 2 3; do SLURM_PROCID=$task "$@" || exit; done
"""


def test_slurm_numbers_the_tasks_of_all_nodes(tmp_path: Path):
    for name, text in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "30007", "SLURM_JOB_NODELIST": "node[1-2]"}
    job |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_CPUS_PER_TASK": "1"}
    show = "import json, os; print(json.dumps(json.loads(os.environ['TF_CONFIG'])))"
    command = ("bash", str(CLUSTER / "train.sbatch"), sys.executable, "-c", show)
    # `run` puts Python's folder first on the path; the stand-ins come before it.
    printed = run("env", f"PATH={tmp_path}:/usr/bin:/bin", *command, cwd=tmp_path, **job).stdout
    workers = ["node1:20007", "node1:20008", "node2:20007", "node2:20008"]
    assert [json.loads(line) for line in printed.splitlines()] == [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        for index in range(4)
    ]
