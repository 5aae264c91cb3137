"""Real data to learn from: digits, clothing, utterances and photographs, as numpy arrays in memory.

`digits` and `photographs` come inside scikit-learn. The other sets are read in their original formats from the folder
that the environment variable ``ENGRAX_DATA`` names, else from the operating system's cache folder; a file that is not
there is downloaded into it. The SHA-256 of what is in a file is checked whenever it is read, a file that is there is
never written to, and nothing is downloaded before a function is called. Inside the folder::

    mnist/            {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
    fashion-mnist/    {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
    japanese-vowels/  JapaneseVowels_{TRAIN,TEST}.ts
"""

import gzip
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Int32, UInt8
from numpy.lib.stride_tricks import sliding_window_view

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_VOWELS = "https://www.timeseriesclassification.com/aeon-toolkit/JapaneseVowels.zip"

# file in the data folder: (SHA-256 of its contents, where to download it or the zip archive that holds it).
# The contents of a .gz file are what is compressed in it: copies in circulation differ in how they were compressed.
_FILES: dict[str, tuple[str, str]] = {
    "mnist/train-images-idx3-ubyte.gz": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        _MNIST + "train-images-idx3-ubyte.gz",
    ),
    "mnist/train-labels-idx1-ubyte.gz": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        _MNIST + "train-labels-idx1-ubyte.gz",
    ),
    "mnist/t10k-images-idx3-ubyte.gz": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        _MNIST + "t10k-images-idx3-ubyte.gz",
    ),
    "mnist/t10k-labels-idx1-ubyte.gz": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        _MNIST + "t10k-labels-idx1-ubyte.gz",
    ),
    "fashion-mnist/train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        _FASHION + "train-images-idx3-ubyte.gz",
    ),
    "fashion-mnist/train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        _FASHION + "train-labels-idx1-ubyte.gz",
    ),
    "fashion-mnist/t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        _FASHION + "t10k-images-idx3-ubyte.gz",
    ),
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        _FASHION + "t10k-labels-idx1-ubyte.gz",
    ),
    "japanese-vowels/JapaneseVowels_TRAIN.ts": (
        "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        _VOWELS,
    ),
    "japanese-vowels/JapaneseVowels_TEST.ts": (
        "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
        _VOWELS,
    ),
}


class DatasetError(RuntimeError):
    """A data set cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set, split into training and test samples.

    Samples of images are rows, laid out line by line: ``train_x.reshape(-1, *shape)`` gives the images back. Samples
    of a sequence set are (time, channel), and the lengths say how many ticks of each are data and not padding.
    """

    name: str
    train_x: Float32[np.ndarray, "train ..."]  # the loader's docstring gives the unit and the range
    train_y: Int32[np.ndarray, " train"]  # index into classes
    test_x: Float32[np.ndarray, "test ..."]
    test_y: Int32[np.ndarray, " test"]
    shape: tuple[int, ...]  # of one sample: (height, width) or (time, channels)
    classes: tuple[str, ...]  # what each label means
    train_lengths: Int32[np.ndarray, " train"] | None = None  # ticks of each sequence; None: not sequences
    test_lengths: Int32[np.ndarray, " test"] | None = None


def mnist() -> Dataset:
    """Handwritten digits: 60,000 training and 10,000 test images of 28 x 28 pixels.

    ``train_x`` (60000, 784) and ``test_x`` (10000, 784): ink, from 0 (paper) to 1, in steps of 1/255.
    ``train_y``, ``test_y``: the digit.

    LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86:2278, 1998.
    """
    return _idx_dataset("mnist", tuple("0123456789"))


def fashion_mnist() -> Dataset:
    """Articles of clothing, in the format and size of `mnist`, and harder to tell apart.

    ``train_x`` (60000, 784) and ``test_x`` (10000, 784): brightness, from 0 (background) to 1, in steps of 1/255.
    ``train_y``, ``test_y``: the kind of article, 0 to 9, named by ``classes``.

    Xiao, Rasul & Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms,
    arXiv:1708.07747, 2017.
    """
    articles = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
    return _idx_dataset("fashion-mnist", tuple(articles.split(",")))


def digits() -> Dataset:
    """Small handwritten digits that need no download: 1,437 training and 360 test images of 8 x 8 pixels.

    ``train_x`` (1437, 64) and ``test_x`` (360, 64): ink, from 0 (paper) to 1, in steps of 1/16. ``train_y``,
    ``test_y``: the digit. The set has no published split; here the last fifth of the file is the test. It is not
    shuffled, so the split is the same with every version of every library, and harder: a logistic regression gets 90 %
    right, and 98 % after a shuffle, which puts digits that were neighbours in the file into both parts.

    Alpaydin & Kaynak, Cascading classifiers, Kybernetika 34:369, 1998 (the test part of their set).
    """
    # scikit-learn takes longer to import than the rest of the package: only its users wait for it
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y, train = (x / 16).astype(np.float32), y.astype(np.int32), 1437
    return Dataset("digits", x[:train], y[:train], x[train:], y[train:], (8, 8), tuple("0123456789"))


def japanese_vowels() -> Dataset:
    """Nine men say the two vowels /ae/: 270 training and 370 test utterances of 7 to 29 frames; who speaks?

    ``train_x`` (270, 29, 12) and ``test_x`` (370, 29, 12): 12 cepstral coefficients of linear prediction for each frame
    of 25.6 ms, a frame every 6.4 ms; no unit, from -1.9 to 2.2, 95 % of them within -1 to 1. Frames after the end are
    0: utterance k is ``train_x[k, :train_lengths[k]]``. ``train_y``, ``test_y``: the speaker, 0 to 8, whom the file
    and ``classes`` call "1" to "9".

    Kudo, Toyama & Shimbo, Multidimensional curve classification using passing-through regions, Pattern Recognition
    Letters 20:1103, 1999.
    """
    train, test = (f"japanese-vowels/JapaneseVowels_{part}.ts" for part in ("TRAIN", "TEST"))
    train_sequences, train_y, classes = _parse_ts(train, _read(train))
    test_sequences, test_y, _ = _parse_ts(test, _read(test))
    time = max(len(sequence) for sequence in train_sequences + test_sequences)
    train_x, train_lengths = _pad(train_sequences, time)
    test_x, test_lengths = _pad(test_sequences, time)
    shape = train_x.shape[1:]
    return Dataset("japanese-vowels", train_x, train_y, test_x, test_y, shape, classes, train_lengths, test_lengths)


def photographs() -> Float32[np.ndarray, "2 427 640"]:
    """Two photographs that need no download, a Chinese temple and a flower: grey, from 0 (black) to 1 (white).

    Grey is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, of the stored (gamma-compressed) values: not linear
    in luminance. The pictures are scikit-learn's "china.jpg" and "flower.jpg", under the licence CC BY 2.0.
    """
    from sklearn.datasets import load_sample_images

    luma = np.array([0.299, 0.587, 0.114], np.float64) / 255
    return np.stack([np.asarray(image @ luma, np.float32) for image in load_sample_images().images])


def patches(
    images: Float[np.ndarray, "*images height width"] | Sequence[Float[np.ndarray, "height width"]],
    size: int,
    count: int,
    seed: int = 0,
) -> Float32[np.ndarray, "count size*size"]:
    """``count`` square patches of ``size`` x ``size`` pixels, one a row, in the unit of the images.

    Every position in every image is as likely as any other; patches may overlap and repeat. Each pixel's mean over the
    patches is then subtracted, so that every column has mean 0. Images may differ in size; one image need no list.

    >>> from engrax import networks as nets
    >>> nets.patches(nets.photographs(), size=12, count=1000, seed=0).shape
    (1000, 144)
    """
    stack = [images] if isinstance(images, np.ndarray) and images.ndim == 2 else list(images)
    if size < 1 or count < 1:
        raise ValueError(f"patches(size={size}, count={count}): both must be at least 1")
    for k, image in enumerate(stack):
        if image.ndim != 2 or min(image.shape) < size:
            raise ValueError(
                f"image {k} has shape {image.shape}; patches of size {size} need (height, width), both that large"
            )
    if not stack:
        raise ValueError("there are no images to take patches from")
    windows = [sliding_window_view(image, (size, size)) for image in stack]
    ends = np.cumsum([window.shape[0] * window.shape[1] for window in windows])
    places = np.random.default_rng(seed).integers(ends[-1], size=count)
    which = np.searchsorted(ends, places, side="right")
    drawn = np.empty((count, size * size))
    for k, window in enumerate(windows):
        mine = which == k
        rows, columns = np.divmod(places[mine] - (ends[k] - window.shape[0] * window.shape[1]), window.shape[1])
        drawn[mine] = window[rows, columns].reshape(-1, size * size)
    return np.asarray(drawn - drawn.mean(axis=0), np.float32)


def whiten_image(
    image: Float[np.ndarray, "height width"], cutoff: float = 200 / 256
) -> Float32[np.ndarray, "height width"]:
    r"""The image through the zero-phase whitening filter of Olshausen & Field, scaled to mean 0 and variance 1.

    .. math:: R(f) = f \, e^{-(f / f_0)^4}

    :math:`f` is the length of the spatial frequency vector; :math:`f` flattens the spectrum of natural images, whose
    amplitude falls as :math:`1 / f`, and the exponential removes the highest frequencies, where there is more noise
    than image. ``cutoff`` is :math:`f_0` as a fraction of the Nyquist frequency (half a cycle a pixel). The default is
    the paper's 200 cycles a picture in pictures of 512 pixels.

    Edges: the image is continued by its mirror image. A plain Fourier filter would join opposite edges instead, and
    whiten the jump between them into a bright frame. The cosine transform (DCT-II) is the Fourier transform of the
    mirrored image, so the filter acts on it directly, and the result has the size of the image, with nothing to crop.

    Olshausen & Field, Emergence of simple-cell receptive field properties by learning a sparse code for natural images,
    Nature 381:607, 1996.
    """
    if image.ndim != 2:
        raise ValueError(f"whiten_image takes one grey image, (height, width), not an array of shape {image.shape}")
    if not cutoff > 0:
        raise ValueError(f"cutoff={cutoff} must be positive: it is a fraction of the Nyquist frequency")
    if np.ptp(image) == 0:
        raise ValueError("every pixel of the image has the same value: there is nothing to whiten")
    height, width = image.shape
    f = np.hypot(np.arange(height)[:, None] / height, np.arange(width)[None, :] / width)  # Nyquist frequencies
    white = scipy.fft.idctn(f * np.exp(-((f / cutoff) ** 4)) * scipy.fft.dctn(image.astype(float)))
    return np.asarray(white / white.std(), np.float32)


def _read(name: str) -> bytes:
    """The verified contents of a file of `_FILES`, which is downloaded if need be."""
    import pooch  # not above: its progress bars warn in notebooks without widgets, at import

    directory = Path(os.environ.get("ENGRAX_DATA") or pooch.os_cache("engrax")).expanduser().resolve()
    path = directory / name
    checksum, url = _FILES[name]
    if path.exists():
        try:
            return _contents(path, checksum)
        except ValueError as error:
            raise DatasetError(
                f"{path} is not the original file: {error}; replace it, or delete it to have it downloaded from {url}"
            ) from error
    try:
        _download(directory, url)
        return _contents(path, checksum)
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # what requests raises are OSErrors
        raise DatasetError(
            f"{name} is not in {directory} and cannot be downloaded from {url} ({error}); set ENGRAX_DATA to a folder "
            f"that has {name}, or to a writable one and go online"
        ) from error


def _contents(path: Path, checksum: str) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != checksum:
        raise ValueError(f"the contents of {path.name} have SHA-256 {found}, not {checksum}")
    return data


def _download(directory: Path, url: str) -> None:
    """Puts the files that ``url`` has for us and that are missing into ``directory``, each only when verified."""
    import pooch

    directory.mkdir(parents=True, exist_ok=True)
    # scratch inside the directory, so that the last step is a rename: no other process sees half a file
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        target = Path(scratch) / url.rsplit("/", 1)[1]
        pooch.HTTPDownloader(progressbar=True)(url, str(target), None)
        members = pooch.Unzip()(str(target), "download", None) if target.suffix == ".zip" else [target]
        by_name = {Path(member).name: Path(member) for member in members}
        for name, (checksum, source) in _FILES.items():
            path = directory / name
            if source != url or path.exists():
                continue
            if path.name not in by_name:
                raise ValueError(f"{target.name} holds no {path.name}")
            _contents(by_name[path.name], checksum)
            path.parent.mkdir(exist_ok=True)
            by_name[path.name].replace(path)


def _idx_dataset(name: str, classes: tuple[str, ...]) -> Dataset:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    train_images, train_y, test_images, test_y = (_parse_idx(_read(f"{name}/{kind}-ubyte.gz")) for kind in kinds)
    return Dataset(
        name,
        _rows(train_images),
        train_y.astype(np.int32),
        _rows(test_images),
        test_y.astype(np.int32),
        train_images.shape[1:],
        classes,
    )


def _rows(images: UInt8[np.ndarray, "n height width"]) -> Float32[np.ndarray, "n height*width"]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def _parse_idx(data: bytes) -> UInt8[np.ndarray, "..."]:
    """IDX, for bytes: 0, 0, 8, the number of axes, each axis' length as a big-endian 32-bit number, then the values."""
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(tuple(map(int, shape)))


def _pad(
    sequences: list[Float32[np.ndarray, "_ channels"]], time: int
) -> tuple[Float32[np.ndarray, "n time channels"], Int32[np.ndarray, " n"]]:
    padded = np.zeros((len(sequences), time, sequences[0].shape[1]), np.float32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded, np.array([len(sequence) for sequence in sequences], np.int32)


def _parse_ts(
    name: str, data: bytes
) -> tuple[list[Float32[np.ndarray, "time channels"]], Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Sequences, labels and class names of a file in the ``.ts`` format of the UEA archive of time series.

    After a header of ``@key value`` lines and ``@data``, a line is a case: its dimensions and at last its class, joined
    by ``:``; a dimension is its values in time, joined by ``,``. Lines that start with ``#`` are comments.
    """
    header: dict[str, str] = {}
    classes: list[str] = []
    sequences: list[Float32[np.ndarray, "time channels"]] = []
    labels: list[int] = []
    # a stray byte becomes a sign that is no number, and so an error that names its line
    for number, line in enumerate(map(str.strip, data.decode("utf-8", "replace").split("\n")), start=1):
        try:
            if not line or line.startswith("#"):
                continue
            if "data" in header:
                sequence, label = _parse_case(line, classes)
                channels = int(header.setdefault("dimensions", str(sequence.shape[1])))
                if sequence.shape[1] != channels:
                    raise ValueError(f"{sequence.shape[1]} dimensions where the file has {channels}")
                sequences.append(sequence)
                labels.append(label)
                continue
            if not line.startswith("@"):
                raise ValueError("before @data, a line is a comment, # ..., or a header, @key value")
            key, _, value = line[1:].partition(" ")
            key, value = key.lower(), value.strip()
            header[key] = value
            if key == "timestamps" and value.lower() == "true":
                raise ValueError("time stamps are not supported")
            if key == "classlabel":
                classes = value.split()[1:]
            if key == "data" and not classes:
                raise ValueError("@data comes before the classes: @classLabel true NAME NAME ... is missing")
        except ValueError as error:
            raise DatasetError(f"{name}, line {number}: {error}") from error
    if not sequences:
        raise DatasetError(f"{name} holds no cases" + ("" if "data" in header else ": it has no line @data"))
    return sequences, np.array(labels, np.int32), tuple(classes)


def _parse_case(line: str, classes: list[str]) -> tuple[Float32[np.ndarray, "time channels"], int]:
    *dimensions, label = (part.strip() for part in line.split(":"))
    if not dimensions:
        raise ValueError("a case is its dimensions and its class, joined by ':'; there is no ':'")
    if label not in classes:
        raise ValueError(f"class {label[:40]!r} is not one of {', '.join(classes)}")
    rows: list[list[float]] = []
    for k, dimension in enumerate(dimensions, start=1):
        try:
            rows.append([float(value) for value in dimension.split(",")])
        except ValueError as error:
            raise ValueError(f"dimension {k}: {error}") from error
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"dimension {k} has {len(rows[-1])} values where dimension 1 has {len(rows[0])}")
        if not np.isfinite(rows[-1]).all():
            raise ValueError(f"dimension {k} has a value that is not finite")
    return np.array(rows, np.float32).T, classes.index(label)
