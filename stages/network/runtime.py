"""TensorFlow and Keras, set up and imported without their start-up notes.

All code takes them from here, since some settings count only before the first import. The import
takes seconds, so only what trains or exports a network imports this.
"""

import os

from stages.base.quiet import silent_stderr

os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN is off by default on CPUs without AVX-512. On, convolutions train 1.2 to 1.5 times as fast
# (measured on 2 AVX2 cores).
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
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

__all__ = ["keras", "seed_everything", "tf"]


def seed_everything(seed: int) -> None:
    """Make all that follows a function of `seed`: initial weights, dropout, the order of sums."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
