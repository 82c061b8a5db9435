"""The numbers that README.md and docs/ quote, filled in from the last run.

    python -m tools.card            # fills them in
    python -m tools.card --check    # fails if one of them is not that of the metrics

A number stands between marks that are invisible on the page: <!--=accuracy-->99.65 %<!--/-->. All
come from files in Git that `dvc repro` writes, so they are of one run, and a fresh clone can check
them.
"""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from stages.base.files import atomic_output
from stages.base.stage import UserError, arguments, run_stage
from stages.report.corruptions import MNIST_C, OTHERS
from stages.report.scores import percent, wilson_interval
from tools.compare import conclusion, load_run
from tools.experiments import load
from tools.run import summary

CLASSES = 20  # that are named
MARK = re.compile(r"(<!--=(\w+)-->)(.*?)(<!--/-->)", re.DOTALL)


def numbers() -> dict[str, str]:
    """What may be quoted, by the key in the marks; `run` tells which params it belongs to."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    epochs, seeds = params["train"]["epochs"], params["seeds"]
    found = load_run()
    metrics = load(None, "metrics/evaluate.json")
    packaged = pd.DataFrame([load(None, f"metrics/package/seed-{seed}.json") for seed in seeds])
    frame = pd.read_csv("metrics/misclassified.csv", dtype=str)
    pairs = Counter(zip(frame["actual"], frame["predicted"], strict=True)).most_common(3)
    data = pd.read_csv("metrics/data.csv", index_col="class")
    more = len(data) - CLASSES
    corruptions = pd.read_csv("metrics/corruptions.csv", index_col="corruption")
    known, others = (corruptions["error"][list(names)] for names in (MNIST_C, OTHERS))
    worst = known.sort_values(ascending=False)[:3]
    interval = wilson_interval(found.images - len(frame), found.images)
    exports = pd.read_csv(f"metrics/exports/seed-{seeds[0]}.csv", index_col="file")
    files = {
        f"{file}_{key}".replace(".", "_"): f"{value:,}"
        for file, row in exports.iterrows()
        for key, value in row.items()
    }
    return files | {
        # As `make` says in a fresh clone.
        "summary": f"\n```\n{summary(found, conclusion(found, found, 'the committed run'))}\n```\n",
        "run": hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8],
        "epochs": f"{epochs} epoch{'s' * (epochs > 1)}",
        "dataset": found.dataset,
        "classes": ", ".join(map(str, data.index[:CLASSES])) + f" and {more} more" * (more > 0),
        "splits": ", ".join(f"{count:,} {split}" for split, count in data.sum().items()),
        "images": f"{found.images:,}",
        "errors": f"{len(frame):,}",
        "accuracy": percent(found.accuracy),
        "interval": f"{percent(interval['low'])} to {percent(interval['high'])}",
        "disputed": str(metrics.get("disputed", 0)),
        "undisputed": percent(metrics.get("undisputed", found.accuracy)),
        "train": percent(packaged["train"].mean()),
        "val": percent(packaged["val"].mean()) if "val" in packaged else "(no validation images)",
        "loss": f"{metrics['loss']:.4f} nats",
        "ece": f"{100 * metrics['ece']:.2f} points",
        "confusions": ", ".join(f"{a} predicted as {p} ({n} times)" for (a, p), n in pairs)
        or "none",
        "corrupt": percent(known.mean(), 1),
        "other": percent(others.mean(), 1),
        "corrupt_images": f"{corruptions['images'].iloc[0]:,}",
        "worst": ", ".join(f"{n.replace('_', ' ')} ({percent(e, 1)})" for n, e in worst.items()),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if one differs")
    check = parser.parse_args().check
    values, faults, texts = numbers(), [], {}
    for path in (Path("README.md"), *sorted(Path("docs").glob("*.md"))):
        texts[path] = path.read_text(encoding="utf-8")
        for _, key, quoted, _ in MARK.findall(texts[path]):
            if key not in values:
                raise UserError(f"{path}: unknown mark {key!r}; there are {', '.join(values)}")
            if key == "run" and quoted != values["run"] and check:
                print(f"{path} quotes a run of other params; `make card` quotes this one")
                return
            if quoted != values[key]:
                faults.append(f"{path}: {key}: expected {values[key]!r}, found {quoted!r}")
    if check and faults:
        raise UserError("\n".join([*faults, "`make card` fills in the numbers of the last run"]))
    for path, text in texts.items():
        new = MARK.sub(lambda mark: f"{mark[1]}{values[mark[2]]}{mark[4]}", text)
        if new != text and not check:
            with atomic_output(path) as temporary:
                temporary.write_text(new, encoding="utf-8", newline="\n")
            print(f"{path}: the numbers are those of the last run")


if __name__ == "__main__":
    run_stage(main)
