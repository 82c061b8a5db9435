"""Which images are for training, for validation and for the test: a function of their content.

Each image has a key, a checksum of its pixels. Key and seed give a number between 0 and 1, and an
image with a number below 0.2 is, say, for the test. So an image stays where it is whatever is added
or removed, and images of the same picture, which have one key, are always on the same side.
"""

import hashlib

import numpy as np

from stages.base.stage import UserError


def digest(content: bytes, seed: int = 0) -> int:
    """A checksum of 64 bits; another seed gives another one."""
    salt = seed.to_bytes(16, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=salt).digest(), "little")


def assign(
    keys: np.ndarray,
    labels: np.ndarray,
    shares: dict[str, float],
    seed: int,
    classes: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Divide images among splits, so that each class is in each split.

    Args:
        keys: uint64, shape (N,); images with the same key go to the same split.
        labels: integers, shape (N,).
        shares: of the images, by split; that of "validation" is of what "test" leaves. What is left
            is for "train". A split with a share of 0 gets nothing.
        seed: another one gives another division.
        classes: names by label.

    Returns:
        Numbers of images by split, "train" and those of `shares`, each ascending.

    Raises:
        UserError: a class has too few different images to be in each split.
    """
    unique, group = np.unique(keys, return_inverse=True)
    draws = np.array([digest(key.tobytes(), seed) for key in unique]) / 2.0**64
    chosen = np.full(len(unique), "train", object)
    start, left = 0.0, 1.0
    for split in ("test", "validation"):
        end = start + shares.get(split, 0.0) * left
        chosen[(draws >= start) & (draws < end)] = split
        start, left = end, 1 - end
    wanted = ["train", *(split for split, share in shares.items() if share)]
    for label in np.unique(labels):
        own = np.unique(group[labels == label])
        if len(own) < len(wanted):
            raise UserError(
                f"class {classes[label]!r}: expected at least {len(wanted)} different images, one "
                f"each for {', '.join(wanted)}, found {len(own)}"
            )
        for split in wanted:  # chance may leave a rare class out of a small split
            if not (chosen[own] == split).any():
                counts = {each: (chosen[own] == each).sum() for each in wanted}
                most = max(counts, key=counts.get)
                candidates = own[chosen[own] == most]
                chosen[candidates[draws[candidates].argmin()]] = split
    return {split: np.flatnonzero(chosen[group] == split) for split in ("train", *shares)}
