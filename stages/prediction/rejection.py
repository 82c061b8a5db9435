"""Whether an image looks like anything the model was trained on, and whether its class is sure.

A model trained on digits takes everything for one. But a letter or a scribble rarely looks to it
like the images it was trained on: its features, what the last layer classifies, point elsewhere.
The features of each class's training images fall into groups; an image is as much like its class as
its features point in the direction of the nearest group. (After K. Lee et al., "A simple unified
framework for detecting out-of-distribution samples and adversarial attacks", arXiv 1807.03888,
2018, who measure that by distances from the classes' means.)
"""

import numpy as np

LEAST = 0.5  # probability: the class is likelier than all others together
KEEP = 0.99  # share of images with a sure prediction that are accepted
KEEP_DOUBTFUL = 0.95  # the same where something else says already that there may be nothing
GROUPS = 16  # of each class's training images, at most
DIGITS = 4  # of the threshold


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float32, shape (N, features)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)


def centres_of(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Directions of the groups into which the features of each class fall.

    Args:
        features: of training images, float32, shape (N, features).
        labels: integers, shape (N,).
        classes: how many there are.

    Returns:
        float16, shape (classes, GROUPS, features); 0 for a class without images.
    """
    from scipy.cluster.vq import kmeans2

    centres = np.zeros((classes, GROUPS, features.shape[1]), np.float16)
    for label in np.unique(labels):
        own = normalised(features[labels == label])
        groups = min(GROUPS, len(np.unique(own, axis=0)))
        found = own[:1] if groups == 1 else kmeans2(own, groups, minit="++", seed=0)[0]
        centres[label] = np.resize(normalised(found), centres[label].shape)
    return centres


def likeness(features: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """How much images look like those of a class: a cosine, float32, shape (N,).

    Args:
        features: shape (N, features).
        labels: of the classes, shape (N,).
        centres: of `centres_of`.
    """
    of_class = centres[labels].astype(np.float32)
    return np.einsum("nf,ngf->ng", normalised(features), of_class).max(axis=1)


def threshold(likeness: np.ndarray, probabilities: np.ndarray, keep: float) -> float:
    """The likeness that this share of the images with a sure prediction exceed."""
    sure = likeness[probabilities.max(axis=1) >= LEAST]
    if not len(sure):
        return 0.0
    return float(np.floor(np.quantile(sure, 1 - keep) * 10**DIGITS) / 10**DIGITS)
