"""Discard an experiment: back to the committed params, results, data and model.

    python -m tools.undo

Asks nothing and loses nothing that cannot be computed again: if params.yaml, dvc.lock, metrics or
plots differ from the commit, they are first kept as a DVC experiment, together with the code as it
is. In the project's folder no code is changed.
"""

from dvc.exceptions import CheckoutError, DvcException
from dvc.repo import Repo

from stages.base.stage import UserError, run_stage
from tools.experiments import RESULT, git, keep, new_outputs
from tools.recover import refuse_while_dvc_works

MISSING = "DVC has no copy of the committed run: it ran on another machine. `make` runs it again"


def main() -> None:
    refuse_while_dvc_works()
    if name := keep("undone"):
        print(f"Kept what you had: `dvc exp apply {name}` brings it back.")
    git("add", "--", *new_outputs())  # known to Git, they are removed like what has changed
    changed = git("diff", "--name-only", "HEAD")
    ours = [path for path in changed if path.split("/")[0] in RESULT]
    if ours:
        git("restore", "--staged", "--worktree", "--source=HEAD", "--", *ours)
    if code := ", ".join(path for path in changed if path not in ours):
        print(f"Left your other edits as they are: {code}.")
    print("params.yaml, dvc.lock, metrics and plots are as committed.")
    try:
        # Not all that DVC knows: a folder of the user's pictures may have new ones in it.
        Repo().checkout(targets=["dvc.yaml"], force=True)
    except CheckoutError:
        raise UserError(MISSING) from None
    except DvcException as error:
        raise UserError(f"dvc checkout: {error}") from None
    print("Data and models are those of the committed run.")


if __name__ == "__main__":
    run_stage(main, __doc__)
