"""Stage environment: are params.yaml and the installed packages in order?

It runs before all others: DVC removes a stage's outputs before it runs the stage, so a mistake in
params.yaml must stop here. The versions of the packages that decide results go into a file that
`train` depends on.
"""

from stages.base import params, versions
from stages.base.files import replacing
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue
from stages.dataset.settings import Download, Preprocess, held_out
from stages.network.settings import Seeds, Train
from stages.prediction.settings import Package
from stages.report.settings import Evaluate, Robustness

SECTIONS = {
    "seeds": Seeds,
    "download": Download,
    "preprocess": Preprocess,
    "train": Train,
    "package": Package,
    "evaluate": Evaluate,
    "robustness": Robustness,
}


def check_params() -> None:
    """Check all of params.yaml, and that the values fit each other.

    Raises:
        UserError: the message names each value that is wrong, and what was expected.
    """
    settings = params.load_all(SECTIONS)
    images = catalogue.find(settings["download"].dataset).training_images
    left = images - held_out(settings["preprocess"].validation_size, images)
    if settings["train"].batch_size > left:
        raise UserError(
            f"{params.PARAMS}: train.batch_size: expected at most {left:,}, the training images "
            f"that preprocess.validation_size leaves, found {settings['train'].batch_size:,}"
        )


def main() -> None:
    check_params()
    found = versions.check(versions.REQUIREMENTS)
    lines = [f"{name}=={version}" for name, version in found.items()]
    with replacing(versions.ENVIRONMENT) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(*lines)


if __name__ == "__main__":
    run_stage(main)
