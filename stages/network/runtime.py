"""TensorFlow and Keras, set up and imported without their start-up notes.

All code takes them from here, since some settings count only before the first import. The import
takes seconds, so only what trains or exports a network imports this.
"""

import os

from numpy._core._multiarray_umath import __cpu_features__  # what np.show_runtime() prints

from stages.base.quiet import silent_stderr

os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN is off by default on CPUs without AVX-512. On, convolutions train 1.2 to 1.5 times as fast
# (measured on 2 AVX2 cores).
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
# With AVX2, oneDNN sums in another order than with AVX-512, and training ends in another network.
# oneDNN looks up this limit when it first computes. What newer processors have beyond AVX-512 is
# left out: it changes nothing here, and might do so one day.
LIMITS = {"avx512": "AVX512_CORE", "avx2": "AVX2"}
os.environ["ONEDNN_MAX_CPU_ISA"] = LIMITS["avx512"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # only fatal errors; Python's exceptions remain

with silent_stderr():
    import keras
    import tensorflow as tf

# Gradients of convolutions are summed in one part per thread, so the last bits of a result depend
# on the number of threads; fixed, they do not depend on the number of cores. Raise it on a machine
# with more cores: everything is then trained again, to slightly other networks.
THREADS = 2
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.get_logger().setLevel("ERROR")  # predicting with five networks is no reason for a warning

__all__ = ["keras", "limit_instructions", "seed_everything", "tf"]


def limit_instructions(limit: str) -> str:
    """Let oneDNN use a processor's instructions up to `limit`; call it before anything is computed.

    Args:
        limit: a key of LIMITS.

    Returns:
        Which ones it will use, in words.
    """
    os.environ["ONEDNN_MAX_CPU_ISA"] = LIMITS[limit]
    if limit == "avx2" and __cpu_features__.get("AVX2"):
        return "AVX2, as train.instructions says"
    if __cpu_features__.get("AVX512_SKX"):  # the same set of instructions as oneDNN's AVX512_CORE
        return "AVX-512"
    if __cpu_features__.get("AVX2"):
        return "AVX2, since this processor has no AVX-512"
    return "what this processor has, neither AVX-512 nor AVX2"


def seed_everything(seed: int) -> None:
    """Make all that follows a function of `seed`: initial weights, dropout, the order of sums."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
