"""Which images go to which split: a function of each image, with every class in every split."""

import numpy as np
import pytest

from stages.base.stage import UserError
from stages.dataset.splits import assign

SHARES = {"test": 0.2, "validation": 0.1}
CLASSES = ("a", "b", "rare")


def images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**63, count, np.uint64), rng.integers(0, 2, count)


def test_shares_hold_in_each_class():
    keys, labels = images(20_000)
    found = assign(keys, labels, SHARES, 0, CLASSES)
    assert sorted(np.concatenate([*found.values()])) == [*range(20_000)]
    for label in (0, 1):
        count = (labels == label).sum()
        for split, share in {"test": 0.2, "validation": 0.08}.items():
            assert abs((labels[found[split]] == label).sum() / count - share) < 0.015


def test_adding_images_moves_no_other_and_another_seed_moves_many():
    keys, labels = images(1000)
    half = assign(keys[:500], labels[:500], SHARES, 0, CLASSES)
    both = assign(keys, labels, SHARES, 0, CLASSES)
    for split in half:
        np.testing.assert_array_equal(half[split], both[split][both[split] < 500])
    other = assign(keys, labels, SHARES, 1, CLASSES)
    assert len(np.intersect1d(both["test"], other["test"])) < 0.4 * len(both["test"])


def test_images_with_one_key_stay_together():
    keys, labels = images(300)
    found = assign(np.repeat(keys, 3), np.repeat(labels, 3), SHARES, 0, CLASSES)
    for rows in found.values():
        np.testing.assert_array_equal(rows // 3, np.repeat(np.unique(rows // 3), 3))


@pytest.mark.parametrize("rare", [3, 4, 10])
def test_a_rare_class_is_in_each_split(rare):
    for seed in range(20):
        keys, labels = images(200, seed)
        labels[:rare] = 2
        found = assign(keys, labels, SHARES, seed, CLASSES)
        assert all((labels[rows] == 2).any() for rows in found.values())
        assert (labels[found["train"]] == 2).sum() >= rare - 2 - rare // 2


def test_a_class_with_too_few_different_images_is_named():
    keys, labels = images(200)
    labels[:4] = 2
    keys[1:3] = keys[0]
    with pytest.raises(UserError, match="class 'rare': expected at least 3 different .*found 2"):
        assign(keys, labels, SHARES, 0, CLASSES)
    assign(keys, labels, {"test": 0.2, "validation": 0.0}, 0, CLASSES)
