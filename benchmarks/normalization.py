"""Is FusedBatchNormalization worth its lines? Processor time of training steps, against Keras' own.

    python -m benchmarks.normalization [--pairs 8] [--steps 60]

The default's network is trained with each layer in turns, in one process, by `fit` and with the
batches of training, augmentation included. Printed is the ratio of each pair's processor seconds,
Keras' layer over ours, and their median. The class is kept while the median is 1.05 or more.
"""

import argparse
import time

import numpy as np
from tqdm import tqdm

from stages.base import arrays, params
from stages.base.stage import run_stage
from stages.network import architecture
from stages.network.batches import training_batches
from stages.network.optimizer import Muon
from stages.network.runtime import keras, seed_everything
from stages.network.settings import Train

LAYERS = {"ours": architecture.FusedBatchNormalization, "keras": keras.layers.BatchNormalization}
WARM_UP = 10  # steps that are not measured: tracing and compiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    settings = params.load("train", Train)
    images, labels = arrays.load_split("train")
    classes = int(labels.max()) + 1
    seed_everything(0)
    models = {}
    for name, layer in LAYERS.items():
        architecture.FusedBatchNormalization = layer
        models[name] = architecture.build(classes, settings.network)
        models[name].compile(Muon(0.01, 1.0, 0.9, 0.0), "categorical_crossentropy")

    def seconds(model: keras.Model, steps: int) -> float:
        batches = training_batches(images, labels, classes, settings, range(1), 0).take(steps)
        began = time.process_time()
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.process_time() - began

    for model in models.values():
        seconds(model, WARM_UP)
    ratios = []
    for number in tqdm(range(options.pairs), "pairs", disable=None, leave=False):
        order = sorted(models, reverse=bool(number % 2))
        taken = {name: seconds(models[name], options.steps) for name in order}
        ratios.append(taken["keras"] / taken["ours"])
    print(
        f"Keras' layer takes {np.median(ratios):.3f} times the processor time of ours: median of "
        f"{len(ratios)} pairs of {options.steps} steps, from {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    run_stage(main)
