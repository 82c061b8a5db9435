"""The catalogue of datasets: what each is called, where it is, and how to tell that it is genuine.

Every dataset is four gzipped IDX files under MNIST's own file names, so that all later stages are
the same code. To add one, add an entry to CATALOGUE; the README shows how.
"""

from dataclasses import dataclass
from pathlib import Path

from stages.base.stage import UserError

RAW = Path("data/raw")  # where download puts the files, and preprocess finds them

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class File:
    """One published file: its length in bytes and its SHA-256, both of the .gz."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """One dataset: class names by label, published files by name, mirrors in order of trial.

    The other fields are for its description: what an image shows, the licence, and how many images
    there are to train on. A dataset without files is made on this machine (`digits`, see
    stages/digits.py).
    """

    subject: str
    licence: str
    training_images: int
    classes: tuple[str, ...]
    files: dict[str, File]
    mirrors: tuple[str, ...]


CATALOGUE = {
    # LeCun, Cortes, Burges.
    "mnist": Dataset(
        subject="handwritten digits",
        licence="CC BY-SA 3.0",
        training_images=60_000,
        classes=DIGITS,
        files={
            TRAIN_IMAGES: File(
                9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            TRAIN_LABELS: File(
                28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            TEST_IMAGES: File(
                1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            TEST_LABELS: File(
                4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
    ),
    # Xiao, Rasul, Vollgraf, arXiv 1708.07747.
    "fashion_mnist": Dataset(
        subject="articles of clothing",
        licence="MIT",
        training_images=60_000,
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files={
            TRAIN_IMAGES: File(
                26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            TRAIN_LABELS: File(
                29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            TEST_IMAGES: File(
                4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            TEST_LABELS: File(
                5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    # Clanuwat et al., arXiv 1812.01718.
    "kmnist": Dataset(
        subject="cursive Japanese characters",
        licence="CC BY-SA 4.0",
        training_images=60_000,
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        files={
            TRAIN_IMAGES: File(
                18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"
            ),
            TRAIN_LABELS: File(
                29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"
            ),
            TEST_IMAGES: File(
                3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"
            ),
            TEST_LABELS: File(
                5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"
            ),
        },
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
    ),
    # Alpaydin, Kaynak (UCI, 1998): 1,797 scans of 8×8 that scikit-learn carries; needs no network.
    "digits": Dataset(
        subject="handwritten digits",
        licence="CC BY 4.0",
        training_images=1_437,
        classes=DIGITS,
        files={},
        mirrors=(),
    ),
}


def find(name: str) -> Dataset:
    """The catalogue's entry of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    try:
        return CATALOGUE[name]
    except KeyError:
        known = ", ".join(CATALOGUE)
        raise UserError(f"download.dataset: {name!r} is unknown; there are {known}") from None
