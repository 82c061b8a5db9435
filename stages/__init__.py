"""The pipeline: a script for each stage of dvc.yaml, and the packages that they share."""

import signal
import sys

# `python -m stages.…` comes here first. While it imports its modules, which takes seconds, Ctrl-C
# simply ends the process; afterwards `run_stage` handles it. A job in the background ignores it.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
