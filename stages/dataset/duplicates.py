"""Which images show the same picture: exact copies, and the same picture stored anew, in another
size, or a little brighter.

Images with similar coarse shapes, found in a tree, are compared pixel by pixel. Images that are
alike by nature, such as drawings of the same thing or frames of a film, would become one large
group: it is dissolved, since a class that is on one side of a split as a whole teaches nothing.
"""

import numpy as np

NEAR = 0.025  # largest distance of two coarse shapes, of 0 to 2
SAME = 0.993  # least correlation of two images that show the same picture
NEIGHBOURS = 8  # images that each one is compared with
COMPARED = 32  # pixels: so many, or up to twice, remain of a side when images are compared
ALIKE = 0.25  # share of a class that a group may be
FEWEST = 4  # images that a group may have in any case
BLOCK = 2048  # images


def groups(
    images: np.ndarray, digests: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find images that show the same picture.

    Args:
        images: uint8, shape (N, height, width, channels); memory for some thousand is needed.
        digests: checksums of their pixels, uint64, shape (N,).
        labels: integers, shape (N,).

    Returns:
        groups: for each image the smallest digest of its group, uint64, shape (N,); of most images,
            which are alone in their group, their own.
        alike: whether its group was dissolved, bool, shape (N,).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    different, first, of_image = np.unique(digests, return_index=True, return_inverse=True)
    shapes = np.concatenate(
        [coarse_shapes(images[first[i : i + BLOCK]]) for i in range(0, len(first), BLOCK)]
    )
    structured = np.flatnonzero(np.isfinite(shapes).all(axis=1))  # not of one brightness only
    if not len(structured):
        return digests, np.zeros(len(digests), bool)
    tree = KDTree(shapes[structured])
    _, nearest = tree.query(
        shapes[structured], NEIGHBOURS + 1, distance_upper_bound=NEAR, workers=-1
    )
    left, place = np.nonzero(nearest < len(structured))
    pairs = np.stack([left, nearest[left, place]], axis=1)
    pairs = structured[pairs[pairs[:, 0] < pairs[:, 1]]]
    same = [
        correlations(images[first[part[:, 0]]], images[first[part[:, 1]]]) >= SAME
        for part in np.split(pairs, range(BLOCK, len(pairs), BLOCK))
        if len(part)
    ]
    pairs = pairs[np.concatenate(same)] if same else pairs
    graph = coo_array((np.ones(len(pairs)), pairs.T), (len(different), len(different)))
    component = connected_components(graph, directed=False)[1]

    own = labels[first]
    in_class = np.bincount(own)
    sizes = np.bincount(component)
    alike = np.zeros(len(different), bool)
    for number in np.flatnonzero(sizes > FEWEST):
        members = np.flatnonzero(component == number)
        if len(members) > ALIKE * in_class[np.bincount(own[members]).argmax()]:
            component[members] = len(sizes) + members
            alike[members] = True
    # `different` is sorted: the first of a component has its smallest digest.
    _, start, of_component = np.unique(component, return_index=True, return_inverse=True)
    return different[start[of_component]][of_image], alike[of_image]


def coarse_shapes(images: np.ndarray) -> np.ndarray:
    """The coarse distribution of brightness in images, whatever their brightness and contrast.

    Nine low frequencies of the cosine transform without the mean, of images of norm 1.

    Returns:
        float32, shape (N, 8); not finite for images of one brightness.
    """
    grey = images.mean(axis=3, dtype=np.float32)
    down, across = (_cosines(side) for side in grey.shape[1:])
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    waves = (down @ grey @ across.T).reshape(len(grey), 9)[:, 1:]
    norms = np.linalg.norm(grey, axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return waves / norms[:, np.newaxis]


def _cosines(side: int) -> np.ndarray:
    """The first three of an orthonormal cosine transform (DCT-II), shape (3, side)."""
    wave = np.arange(3)[:, np.newaxis]
    factor = np.where(wave == 0, 1, 2) / side
    return np.float32(np.sqrt(factor) * np.cos(np.pi * wave * (np.arange(side) + 0.5) / side))


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How well each image fits the one at its place in `right`, of -1 to 1, shape (N,)."""
    left, right = (_normalised(images) for images in (left, right))
    return (left * right).sum(axis=1)


def _normalised(images: np.ndarray) -> np.ndarray:
    count, height, width, channels = images.shape
    side = max(1, min(height, width) // COMPARED)  # pixels that become one
    rows, columns = height // side, width // side
    images = images[:, : rows * side, : columns * side]
    images = images.reshape(count, rows, side, columns, side, channels).mean((2, 4), np.float32)
    flat = images.reshape(count, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
