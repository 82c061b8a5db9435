"""What every stage stands on: params, running a stage, files, arrays, package versions."""

import signal
import sys

# While `python -m stages.…` or `apps.…` imports its modules, which takes seconds, Ctrl-C simply
# ends the process; afterwards `run_stage` handles it. A job in the background goes on ignoring it.
started = getattr(sys.modules["__main__"], "__spec__", None)  # by `python -m`
if (
    started
    and started.name.startswith(("stages.", "apps."))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
