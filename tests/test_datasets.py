"""Data sets: the files as read, what is said when they cannot be, and the statistics of patches and whitening."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests

from engrax.networks import datasets
from engrax.networks.datasets import DatasetError

VOWELS = "japanese-vowels/JapaneseVowels_{}.ts"
TS = """# a comment, then a blank line

@problemName Toy
@timeStamps false
@dimensions 2
@classLabel true one two
@data
1,2,3:-1,-2,-3:two
0.5,1e-3:4,5:one
"""
real = pytest.mark.skipif("ENGRAX_DATA" not in os.environ, reason="ENGRAX_DATA names no folder with the real files")


def put(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, contents: bytes) -> Path:
    """A file of ours in the place of a real one, with its own checksum."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
    monkeypatch.setitem(datasets._FILES, name, (hashlib.sha256(contents).hexdigest(), datasets._FILES[name][1]))
    return path


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


IMAGES = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4) * 11  # three images of 2 x 4 pixels, up to 253
LABELS = np.array([7, 0, 9], np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small MNIST and small Japanese Vowels, and no way to download."""
    for part in ("train", "t10k"):
        put(tmp_path, monkeypatch, f"mnist/{part}-images-idx3-ubyte.gz", idx(IMAGES))
        put(tmp_path, monkeypatch, f"mnist/{part}-labels-idx1-ubyte.gz", idx(LABELS))
    put(tmp_path, monkeypatch, VOWELS.format("TRAIN"), TS.encode())
    put(tmp_path, monkeypatch, VOWELS.format("TEST"), TS.replace("1,2,3:-1,-2,-3:two", "1,2,3,4:5,6,7,8:two").encode())
    monkeypatch.setenv("ENGRAX_DATA", str(tmp_path))

    def offline(self: object, url: str, *rest: object) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", offline)
    return tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> list[str]:
    """Downloads copy local files; returns the list of the addresses asked for."""
    asked: list[str] = []

    def download(self: object, url: str, output: str, pooch: object) -> None:
        asked.append(url)
        shutil.copy(files[url], output)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    return asked


def test_idx_files_become_rows_between_0_and_1(folder: Path) -> None:
    data = datasets.mnist()
    assert (data.name, data.shape, data.classes[7]) == ("mnist", (2, 4), "7")
    assert data.train_x.dtype == np.float32
    assert data.train_x.shape == (3, 8)
    np.testing.assert_array_equal(data.train_x.reshape(-1, *data.shape), (IMAGES / np.float32(255)))
    np.testing.assert_array_equal(data.test_y, [7, 0, 9])
    assert data.test_y.dtype == np.int32
    assert data.train_lengths is None


def test_sequences_are_padded_to_the_longest_of_both_parts(folder: Path) -> None:
    data = datasets.japanese_vowels()
    assert data.shape == (4, 2)
    assert data.classes == ("one", "two")
    np.testing.assert_array_equal(data.train_x[0], [[1, -1], [2, -2], [3, -3], [0, 0]])
    np.testing.assert_array_equal(data.train_x[1], np.array([[0.5, 4], [1e-3, 5], [0, 0], [0, 0]], np.float32))
    np.testing.assert_array_equal(data.train_y, [1, 0])
    assert data.train_lengths is not None
    assert data.test_lengths is not None
    np.testing.assert_array_equal(data.train_lengths, [3, 2])
    np.testing.assert_array_equal(data.test_lengths, [4, 2])


def test_another_compression_of_the_same_contents_is_accepted(folder: Path) -> None:
    path = folder / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(IMAGES), compresslevel=0))
    np.testing.assert_array_equal(datasets.mnist().train_x[0], IMAGES[0].ravel() / np.float32(255))


@pytest.mark.parametrize("loss", [3, 30, 10_000])
def test_a_truncated_file_is_named(folder: Path, loss: int) -> None:
    path = folder / "mnist/t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-loss])
    with pytest.raises(DatasetError) as caught:
        datasets.mnist()
    assert str(path) in str(caught.value)
    assert "delete it" in str(caught.value)


def test_a_file_with_other_contents_is_refused_and_left_alone(folder: Path) -> None:
    path = folder / VOWELS.format("TEST")
    path.write_text(TS.replace("0.5", "0.6"))
    with pytest.raises(DatasetError, match=r"SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}; replace it, or delete") as caught:
        datasets.japanese_vowels()
    assert str(path) in str(caught.value)
    assert "0.6" in path.read_text()


def test_missing_and_offline_says_file_folder_and_remedy(folder: Path) -> None:
    missing = "mnist/train-labels-idx1-ubyte.gz"
    (folder / missing).unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(DatasetError) as caught:
        datasets.mnist()
    message = str(caught.value)
    for part in (missing, str(folder), "no route to host", "set ENGRAX_DATA", "go online", "https://ossci-datasets"):
        assert part in message
    assert sorted(folder.rglob("*")) == before


def test_missing_in_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ENGRAX_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DatasetError, match="set ENGRAX_DATA"):
        datasets.fashion_mnist()


def test_without_engrax_data_the_cache_folder_is_looked_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAX_DATA", "")
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder if project == "engrax" else None)
    assert len(datasets.mnist().train_y) == 3


def test_missing_files_are_downloaded_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"  # not there yet
    names = [name for name in datasets._FILES if name.startswith("mnist/")]
    asked = serve(monkeypatch, {datasets._FILES[name][1]: folder / name for name in names})
    monkeypatch.setenv("ENGRAX_DATA", str(cache))
    first, second = datasets.mnist(), datasets.mnist()
    np.testing.assert_array_equal(first.train_x, second.train_x)
    assert sorted(asked) == sorted(datasets._FILES[name][1] for name in names)
    assert sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*.gz")) == sorted(names)
    assert [p.name for p in cache.iterdir()] == ["mnist"]  # no scratch is left


def test_both_files_come_out_of_one_archive(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, archive = tmp_path / "cache", tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for part in ("TRAIN", "TEST"):
            file.write(folder / VOWELS.format(part), f"inner/JapaneseVowels_{part}.ts")
        file.writestr("README.txt", "not wanted")
    asked = serve(monkeypatch, {datasets._VOWELS: archive})
    monkeypatch.setenv("ENGRAX_DATA", str(cache))
    assert datasets.japanese_vowels().shape == (4, 2)
    assert asked == [datasets._VOWELS]
    kept = sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file())
    assert kept == [VOWELS.format("TEST"), VOWELS.format("TRAIN")]


@pytest.mark.parametrize("kind", ["other contents", "no member", "no archive"])
def test_a_wrong_archive_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache, archive = tmp_path / "cache", tmp_path / "archive.zip"
    if kind == "no archive":
        archive.write_text("<html>moved</html>")
    else:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("JapaneseVowels_TRAIN.ts" if kind == "other contents" else "README.txt", "something else")
    serve(monkeypatch, {datasets._VOWELS: archive})
    monkeypatch.setenv("ENGRAX_DATA", str(cache))
    with pytest.raises(DatasetError, match="cannot be downloaded"):
        datasets.japanese_vowels()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "number", "reason"),
    [
        ("0.5,1e-3:4,5:one", "0.5,1e-3:4,x:one", 9, "dimension 2: could not convert string to float: 'x'"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3:4,?:one", 9, "dimension 2: could not convert"),
        ("0.5,1e-3:4,5:one", "0.5,nan:4,5:one", 9, "dimension 1 has a value that is not finite"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3:4,5,6:one", 9, "dimension 2 has 3 values where dimension 1 has 2"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3:one", 9, "1 dimensions where the file has 2"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3:4,5:six", 9, "class 'six' is not one of one, two"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3", 9, "there is no ':'"),
        ("0.5,1e-3:4,5:one", "0.5,1e-3:4,5:one\n\xff", 10, "there is no ':'"),
        ("@timeStamps false", "@timeStamps true", 4, "time stamps are not supported"),
        ("@classLabel true one two", "@classLabel false", 7, "@data comes before the classes"),
        ("@problemName", "problemName", 3, "before @data, a line is"),
    ],
)
def test_a_malformed_line_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, number: int, reason: str
) -> None:
    put(folder, monkeypatch, VOWELS.format("TRAIN"), TS.replace(old, new).encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        datasets.japanese_vowels()
    assert f"JapaneseVowels_TRAIN.ts, line {number}: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("end", "reason"), [("@data", "it has no line @data"), ("1,2,3", "holds no cases")])
def test_a_file_without_cases(folder: Path, monkeypatch: pytest.MonkeyPatch, end: str, reason: str) -> None:
    put(folder, monkeypatch, VOWELS.format("TRAIN"), TS[: TS.index(end)].encode())
    with pytest.raises(DatasetError, match=reason):
        datasets.japanese_vowels()


def test_nothing_is_downloaded_at_import() -> None:
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('a connection at import')\n"
        "socket.socket.connect = refuse\n"
        "import engrax.networks.datasets\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_fixed_split() -> None:
    data = datasets.digits()
    assert data.train_x.shape == (1437, 64)
    assert data.test_x.shape == (360, 64)
    assert data.shape == (8, 8)
    assert data.train_x.dtype == np.float32
    assert data.train_y.dtype == np.int32
    assert data.train_x.min() == 0
    assert data.train_x.max() == 1
    assert np.bincount(data.test_y).tolist() == [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]
    # the file's first rows are the digits in order, so labels and images still belong together
    assert data.train_y[:10].tolist() == list(range(10))
    nearest = ((data.test_x[:, None] - data.train_x[None]) ** 2).sum(-1).argmin(1)
    assert np.mean(data.train_y[nearest] == data.test_y) > 0.95  # 0.967 when written; chance is 0.1


def test_photographs_are_grey() -> None:
    pictures = datasets.photographs()
    assert pictures.shape == (2, 427, 640)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1 + 1e-6
    # the sky over the temple is bright, the leaves behind the flower are dark
    assert pictures[0, :50].mean() > 0.6 > 0.4 > pictures[1].mean()


def test_luma_is_that_of_bt601(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    primaries = np.diag([255, 255, 255]).astype(np.uint8)[None]  # one row: a red, a green and a blue pixel
    bunch = type("Bunch", (), {"images": [primaries]})
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: bunch)
    np.testing.assert_allclose(datasets.photographs(), [[[0.299, 0.587, 0.114]]], rtol=1e-6)


def test_patches_are_of_the_images_and_repeatable() -> None:
    images = datasets.photographs()
    drawn = datasets.patches(images, 6, 500, seed=3)
    assert drawn.shape == (500, 36)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, datasets.patches(images, 6, 500, seed=3))
    assert not np.array_equal(drawn, datasets.patches(images, 6, 500, seed=4))
    assert np.abs(drawn.mean(axis=0)).max() < 1e-6  # float32 rounding of values below 1
    # neighbouring pixels of a photograph are alike, so rows and columns were not scrambled
    grid = drawn.reshape(-1, 6, 6)
    for a, b in ((grid[:, 1:], grid[:, :-1]), (grid[:, :, 1:], grid[:, :, :-1])):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_every_position_of_every_image_is_as_likely() -> None:
    """With patches of one pixel and all pixels different, each value is a position: 6 + 4 positions, 20,000 draws."""
    images = [np.arange(6.0).reshape(2, 3), np.arange(6.0, 10.0).reshape(4, 1)]
    drawn = datasets.patches(images, 1, 20_000, seed=0)[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_allclose(values - values[0], np.arange(10), atol=1e-5)
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)  # five standard deviations


def test_a_patch_is_cut_row_by_row() -> None:
    """Differences between patches are free of the subtracted mean, and so are those between windows cut by hand."""
    image = np.random.default_rng(0).random((3, 4))
    windows = np.array([image[i : i + 2, j : j + 2].ravel() for i in range(2) for j in range(3)])
    known = (windows[:, None] - windows[None, :]).reshape(-1, 4)
    drawn = datasets.patches(image, 2, 50, seed=1)  # one image needs no list
    for difference in drawn - drawn[0]:
        assert np.abs(known - difference).max(axis=1).min() < 1e-6  # float32 rounding of values below 1


@pytest.mark.parametrize("size", [0, 5])
def test_impossible_patches(size: int) -> None:
    with pytest.raises(ValueError, match=r"at least 1|image 1 has shape"):
        datasets.patches([np.zeros((9, 9)), np.zeros((4, 9))], size, 10, seed=0)


def slope(image: np.ndarray) -> float:
    """Exponent of the radially averaged power spectrum between 0.04 and 0.4 of the Nyquist frequency."""
    side = min(image.shape)
    square = image[:side, :side] - image[:side, :side].mean()
    power = np.abs(np.fft.fft2(square * np.outer(np.hanning(side), np.hanning(side)))) ** 2
    frequency = 2 * np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    edges = np.geomspace(0.04, 0.4, 13)
    mean = [power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(mean), 1)[0])


@pytest.mark.parametrize("k", [0, 1])
def test_whitening_flattens_the_spectrum(k: int) -> None:
    image = datasets.photographs()[k]
    white = datasets.whiten_image(image)
    assert white.shape == image.shape
    assert white.dtype == np.float32
    assert abs(white.mean()) < 1e-6
    assert abs(white.std() - 1) < 1e-6
    # natural images have about -2; the filter multiplies power by f^2 e^(-2 (f/f0)^4): +2, less a little near f0
    assert slope(image) < -1.8
    assert abs(slope(white)) < 0.3
    assert 1.9 < slope(white) - slope(image) < 2.0


def test_whitening_is_the_fourier_filter_of_the_mirrored_image() -> None:
    image = np.random.default_rng(0).random((18, 25))
    mirrored = np.pad(image, ((0, 18), (0, 25)), mode="symmetric")
    f = np.hypot(np.fft.fftfreq(36)[:, None], np.fft.fftfreq(50)[None, :])  # cycles a pixel
    f0 = 0.6 / 2
    full = np.fft.ifft2(np.fft.fft2(mirrored) * f * np.exp(-((f / f0) ** 4)))
    assert np.abs(full.imag).max() < 1e-12
    expected = full.real[:18, :25] / full.real[:18, :25].std()
    # float32 rounding of values near 1
    np.testing.assert_allclose(datasets.whiten_image(image, cutoff=0.6), expected, atol=1e-6)


def test_whitening_does_not_see_light_level_or_contrast_and_has_no_phase() -> None:
    image = datasets.photographs()[0][:100, :80]
    white = datasets.whiten_image(image)
    # float32 pixels are rounded differently after each change: 6e-8 of the image is about 1e-5 of the fine detail
    np.testing.assert_allclose(datasets.whiten_image(3 * image + 5), white, atol=1e-3)
    np.testing.assert_allclose(datasets.whiten_image(image[::-1]), white[::-1], atol=1e-5)


@pytest.mark.parametrize("k", [0, 1])
def test_edges_are_no_brighter_than_what_is_near_them(k: int) -> None:
    """The outermost line of pixels against the sixth one; a filter that joins opposite edges fails the same check."""

    def frame(picture: np.ndarray, depth: int) -> float:
        lines = picture[depth], picture[-1 - depth], picture[:, depth], picture[:, -1 - depth]
        return float(np.sqrt(np.mean(np.concatenate(lines) ** 2)))

    image = datasets.photographs()[k]
    f = 2 * np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None, :])
    periodic = np.fft.ifft2(np.fft.fft2(image) * f * np.exp(-((f / (200 / 256)) ** 4))).real
    white = datasets.whiten_image(image)
    assert frame(white, 0) < 1.3 * frame(white, 5)  # 1.06 and 1.10 when written
    assert frame(periodic, 0) > 2 * frame(periodic, 5)  # 2.6 and 4.1 when written


@pytest.mark.parametrize(
    ("image", "cutoff", "reason"),
    [
        (np.zeros((2, 4, 4)), 0.78, "one grey image"),
        (np.ones((4, 4)), 0.78, "nothing to whiten"),
        (np.eye(4), 0.0, "fraction of the Nyquist"),
    ],
)
def test_what_cannot_be_whitened(image: np.ndarray, cutoff: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        datasets.whiten_image(image, cutoff)


@real
def test_the_real_mnist() -> None:
    data = datasets.mnist()
    assert data.train_x.shape == (60_000, 784)
    assert data.test_x.shape == (10_000, 784)
    assert data.shape == (28, 28)
    assert data.train_x.min() == 0
    assert data.train_x.max() == 1
    # the mean and deviation that the field normalises MNIST with
    assert abs(data.train_x.mean(dtype=float) - 0.1307) < 5e-5
    assert abs(data.train_x.std(dtype=float) - 0.3081) < 5e-5
    assert data.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@real
def test_the_real_fashion_mnist() -> None:
    data = datasets.fashion_mnist()
    assert data.train_x.shape == (60_000, 784)
    assert data.test_x.shape == (10_000, 784)
    assert abs(data.train_x.mean(dtype=float) - 0.2860) < 5e-5
    assert abs(data.train_x.std(dtype=float) - 0.3530) < 5e-5
    assert np.bincount(data.train_y).tolist() == [6000] * 10
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    assert data.classes[data.train_y[0]] == "Ankle boot"


@real
def test_the_real_japanese_vowels() -> None:
    data = datasets.japanese_vowels()
    assert data.train_x.shape == (270, 29, 12)
    assert data.test_x.shape == (370, 29, 12)
    assert data.train_lengths is not None
    assert data.test_lengths is not None
    assert (data.train_lengths.min(), data.train_lengths.max()) == (7, 26)
    assert (data.test_lengths.min(), data.test_lengths.max()) == (7, 29)
    # the numbers of utterances that the paper's data are described with
    assert np.bincount(data.train_y).tolist() == [30] * 9
    assert np.bincount(data.test_y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert abs(data.train_x[0, 0, 0] - 1.860936) < 1e-6
    assert abs(data.train_x[0, 0, 1] + 0.207383) < 1e-6
    padding = np.arange(29) >= data.train_lengths[:, None]
    assert not data.train_x[padding].any()
    assert data.train_x[~padding].any()
