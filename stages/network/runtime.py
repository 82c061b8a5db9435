"""TensorFlow and Keras, set up and imported without their start-up notes.

All code takes them from here, since some settings count only before the first import. The import
takes seconds, so only what trains or exports a model imports this.
"""

import os
import sys

from numpy._core._multiarray_umath import __cpu_features__  # what np.show_runtime() prints

from stages.base.quiet import silent_stderr

# What a user has set for other projects changes no result here: of these variables, which choose
# precision, compilers, a way to compute, only those stay that change none.
STAY = {"TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR"}
STAY |= {"ONEDNN_VERBOSE", "DNNL_VERBOSE"}
for name in [*os.environ]:
    if name.startswith(("KERAS_", "TF_", "XLA_", "ONEDNN_", "DNNL_")) and name not in STAY:
        del os.environ[name]
os.environ["KERAS_HOME"] = os.devnull  # no settings of ~/.keras/keras.json, and none is written
os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN is off by default on CPUs without AVX-512. On, convolutions train 1.2 to 1.5 times as fast
# (measured on 2 AVX2 cores).
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
# With AVX2, oneDNN sums in another order than with AVX-512, and training ends in another model.
# oneDNN looks up this limit when it first computes. What newer processors have beyond AVX-512 is
# left out: it changes nothing here, and might do so one day.
LIMITS = {"avx512": "AVX512_CORE", "avx2": "AVX2"}
os.environ["ONEDNN_MAX_CPU_ISA"] = LIMITS["avx512"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # only fatal errors; Python's exceptions remain

# Keras imports these where it finds them, for a third of its start-up, and nothing here needs them.
unused = {"matplotlib", "sklearn"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(unused))  # None: such an import ends with ImportError
with silent_stderr():
    import keras
    import tensorflow as tf
for name in unused:
    del sys.modules[name]

tf.config.threading.set_intra_op_parallelism_threads(2)  # for what predicts; see `limit_processor`
tf.get_logger().setLevel("ERROR")  # predicting with five models is no reason for a warning

__all__ = ["keras", "limit_processor", "seed_everything", "tf"]


def limit_processor(instructions: str, threads: int | str) -> str:
    """Limit what is used of the processor; call it before anything is computed.

    Gradients of convolutions are summed in one part per thread, so the last bits of a result depend
    on the number of threads; with a fixed one they do not depend on the number of cores.

    Args:
        instructions: those that oneDNN may use, a key of LIMITS.
        threads: how many compute, or "auto": one per core.

    Returns:
        What will be used, in words.
    """
    os.environ["ONEDNN_MAX_CPU_ISA"] = LIMITS[instructions]
    note = ""
    if threads == "auto":
        # Not all systems can tell which cores this process may use.
        usable = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count()))
        threads = len(usable(0))
        note = " (auto: on another number of cores, training gives other bytes)"
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return f"{_instructions(instructions)}, threads: {threads}{note}"


def _instructions(chosen: str) -> str:
    """Which of the processor's instructions oneDNN will use, in words."""
    if chosen == "avx2" and __cpu_features__.get("AVX2"):
        return "AVX2 as train.instructions says"
    if __cpu_features__.get("AVX512_SKX"):  # the same set of instructions as oneDNN's AVX512_CORE
        return "AVX-512"
    if __cpu_features__.get("AVX2"):
        return "AVX2 since this processor has no AVX-512"
    return "what this processor has (neither AVX-512 nor AVX2)"


def seed_everything(seed: int) -> None:
    """Make all that follows a function of `seed`: initial weights, dropout, the order of sums."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
