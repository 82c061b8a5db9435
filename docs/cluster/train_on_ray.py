"""Train one model with all workers of a Ray cluster.

    python docs/cluster/train_on_ray.py --workers 2 python -m stages.train --seed 0

From the project's folder, which all nodes see under the same path. Each worker runs the command
with the TF_CONFIG that Ray Train makes for it. RAY_ADDRESS names the cluster; without it, this
machine is one.
"""

import argparse
import os
import subprocess

from ray.train import ScalingConfig
from ray.train.tensorflow import TensorflowTrainer


def work(config: dict) -> None:
    """What each worker does: the command in a process of its own, TF_CONFIG in its environment."""
    subprocess.run(config["command"], cwd=config["folder"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cpus", type=int, default=2, help="that a worker gets")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    scaling = ScalingConfig(
        num_workers=arguments.workers, resources_per_worker={"CPU": arguments.cpus}
    )
    config = {"command": arguments.command, "folder": os.getcwd()}
    TensorflowTrainer(work, train_loop_config=config, scaling_config=scaling).fit()


if __name__ == "__main__":
    main()
