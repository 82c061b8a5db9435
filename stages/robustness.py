"""Stage robustness: how well the networks predict test images that have been corrupted.

Nothing depends on it, so it can be left out: `dvc repro evaluate` stops before it. As in evaluate,
the prediction of several networks is the mean of their probabilities.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.base import data, params
from stages.base.files import replacing_together, write_csv, write_json
from stages.base.stage import run_stage
from stages.prediction.predict import Ensemble
from stages.report import pictures, scores
from stages.report.corruptions import CORRUPTIONS, MNIST_C, corrupt

METRICS = Path("metrics/robustness.json")
CORRUPTION_ERRORS = Path("metrics/corruptions.csv")
EXAMPLES = Path("plots/robustness/corruptions.png")


def main() -> None:
    known = params.load()
    settings, model = known.robustness, Ensemble(known.seeds)
    test = data.load_split("test")
    classes = test.info.classes
    sample = np.random.default_rng(settings.seed).permutation(len(test.labels))[: settings.images]
    images, labels = data.scaled(test.images[sample])[..., 0], test.labels[sample]

    rows, examples = {}, {}
    for name in ("none", *CORRUPTIONS):
        corrupted = images if name == "none" else corrupt(images, name, settings.seed)
        mean, _ = model(corrupted[..., None])
        predicted = mean.argmax(axis=1)
        examples[name] = corrupted[0], predicted[0], mean[0].max()
        errors = int((predicted != labels).sum())
        rows[name] = {"error": errors / len(labels), **scores.wilson_interval(errors, len(labels))}
        rows[name] |= {"errors": errors, "images": len(labels)}
        rows[name]["ece"] = scores.calibration_error(labels, mean)
        rows[name]["aurc"] = scores.risk_coverage_area(labels, mean)
        print(f"{name}: error {scores.percent(rows[name]['error'])}", flush=True)
    frame = pd.DataFrame(rows.values(), index=rows.keys()).round(5)
    counted = frame["error"][list(MNIST_C)]
    with replacing_together() as new:
        write_json(new(METRICS), {"corrupt": round(float(counted.mean()), 4)})
        write_csv(new(CORRUPTION_ERRORS), frame, index_label="corruption")
        pictures.save(pictures.corruptions(examples, labels[0], classes), new(EXAMPLES))
    mean, most = scores.percent(counted.mean()), scores.percent(counted.max())
    print(
        f"{len(counted)} corruptions: error {mean} on average, at most {most} ({counted.idxmax()})"
    )


if __name__ == "__main__":
    run_stage(main)
