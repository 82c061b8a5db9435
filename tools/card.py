"""The model card: a section of README.md, written from the metrics of the last run.

    python -m stages.card            # writes the section
    python -m stages.card --check    # fails if it is not what the metrics yield

Its headings are those of Mitchell et al., Model Cards for Model Reporting (2019), in short form.
"""

import argparse
import json
import re
import textwrap
from pathlib import Path

from stages.base import params
from stages.base.files import replacing
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue as datasets
from stages.evaluate import disputed_labels
from stages.network import architecture as network
from tools import compare

README = Path("README.md")
ROBUSTNESS = Path("metrics/robustness.json")
SECTION = re.compile(r"(?<=<!-- written by `make card` -->\n).*(?=<!-- end of the card -->)", re.S)


def card(metrics: dict, robustness: dict | None, settings: params.Params) -> str:
    """The section, as Markdown.

    Args:
        metrics, robustness: contents of metrics/evaluate.json and, if there is one, of
            metrics/robustness.json, which counts only if it is of the same dataset.
        settings: those of the run.

    Raises:
        UserError: metrics and settings are of different datasets.
    """
    name, augment = metrics["dataset"], settings.train.augment
    if name != settings.download.dataset:
        chosen = settings.download.dataset
        raise UserError(f"{compare.METRICS} is of {name}, params.yaml of {chosen}: `dvc repro`")
    dataset = datasets.find(name)
    size = settings.preprocess.validation_size
    held_out = size if isinstance(size, int) else round(size * dataset.training_images)
    classes = len(dataset.classes)
    model = network.build(classes, settings.train.network)
    disputed = len(disputed_labels(name))
    confusions = [f"{pair} ({count} times)" for pair, count in metrics["confusions"].items()]
    recall = {key: share for key, share in metrics["recall"].items() if key != "macro"}
    weakest = [f"{key} ({percent(recall[key])})" for key in sorted(recall, key=recall.get)[:2]]
    text = f"""## Model card

    Under the headings of [Mitchell et al. 2019](https://arxiv.org/abs/1810.03993); `make card`
    writes it from the metrics of the last run.

    **Model details.** A convolutional [network](stages/network.py) with {model.count_params():,}
    parameters, trained by this pipeline. In: a grey image of 28×28 pixels, 0 (background) to 1
    (stroke). Out: probabilities of {classes} classes. Licence: [Apache-2.0](LICENSE).

    **Intended use.** To classify single {dataset.subject}; to teach; to start a project from. Not
    for rows or pages of them, nor for what is none of the classes (it names one all the same), nor
    for decisions about people that no person checks.

    **Factors.** The files don't tell who made an image, with what, or how it was scanned: results
    by group are not known.

    **Training data.** {name} ({dataset.licence}): {dataset.training_images - held_out:,} images,
    rotated by up to {augment.rotation:g}°, shifted by {augment.shift:g} pixels, zoomed by
    {100 * augment.zoom:g} % and sheared by {100 * augment.shear:g} %, at random; {held_out:,} more
    for validation, on which settings were chosen.

    **Evaluation data.** The {metrics["test_images"]:,} test images of {name}, on which nothing was
    chosen.{f" People doubt the labels of {disputed} of them." if disputed else ""}

    **Metrics and quantitative analyses.**

    {results(metrics)}

    **Known failures.** Commonest: {", ".join(confusions) or "none"}. Classes found least often:
    {" and ".join(weakest)}. {corrupted(robustness, name)}

    **Ethical considerations.** The images name nobody. A wrong reading harms where it is acted on
    unchecked.

    **Caveats and recommendations.** Trained on centred, size-normalised grey images, light on dark:
    other inputs must be brought to that form. The interval is about chance in the choice of test
    images, not about other writers, pens or scanners.
    """
    blocks = [block.strip() for block in text.split("\n\n")]
    return "\n\n".join(
        block if block.startswith("|") else textwrap.fill(" ".join(block.split()), 100)
        for block in blocks
    )


def percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def results(metrics: dict) -> str:
    """The numbers as a table; those that a run did not measure are left out."""
    low, high = (percent(metrics["accuracy_95"][end]) for end in ("low", "high"))
    rows = [
        f"accuracy | {percent(metrics['accuracy'])} (95 % Wilson interval {low} to {high})",
        f"errors | {metrics['errors']:,}",
        f"loss (cross-entropy) | {metrics['loss']:.4f} nats",
        f"Brier score (0 to 2) | {metrics['brier_score']:.4f}",
        f"calibration error | {100 * metrics['calibration_error']:.2f} points",
    ]
    if "calibration_error_unscaled" in metrics:
        before = 100 * metrics["calibration_error_unscaled"]
        rows[-1] += f", {before:.2f} before temperature scaling"
    if "accuracy_undisputed" in metrics:
        rows.insert(1, f"without disputed labels | {percent(metrics['accuracy_undisputed'])}")
    if "mean" in metrics:
        rows[0] = rows[0].replace("accuracy", f"accuracy of {metrics['networks']} averaged", 1)
        mean, std = metrics["mean"]["accuracy"], metrics["std"]["accuracy"]
        rows.append(
            f"accuracy of each alone | mean {percent(mean)}, standard deviation "
            f"{100 * std:.2f} points"
        )
    head = ["| measure | on the test images |", "| --- | --- |"]
    return "\n".join(head + [f"| {row} |" for row in rows])


def corrupted(robustness: dict | None, dataset: str) -> str:
    """A sentence on images with noise, blur and the like, empty if they were not measured."""
    if not robustness or robustness.get("dataset") != dataset:
        return ""
    accuracies = {name: of["accuracy"] for name, of in robustness["corruptions"].items()}
    worst = sorted(accuracies, key=accuracies.get)[:3]
    named = ", ".join(f"{name.replace('_', ' ')} ({percent(accuracies[name])})" for name in worst)
    return (
        f"On corrupted test images the error is {percent(robustness['mean_error'])} on average; "
        f"accuracy is lowest under {named}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if it drifted")
    check = parser.parse_args().check
    settings = params.load()
    metrics = json.loads(compare.read(compare.METRICS, None))
    robustness = json.loads(ROBUSTNESS.read_text("utf-8")) if ROBUSTNESS.exists() else None
    old = README.read_text(encoding="utf-8")
    if not SECTION.search(old):
        raise UserError(f"{README}: expected the marks {SECTION.pattern}, found none")
    new = SECTION.sub(lambda _: f"\n{card(metrics, robustness, settings)}\n\n", old)
    if check and new != old:
        raise UserError(f"{README}: its model card is not that of {compare.METRICS}: `make card`")
    if not check:
        with replacing(README) as temporary:
            temporary.write_text(new, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    run_stage(main)
