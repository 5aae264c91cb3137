"""The wheel, installed away from the checkout, is the whole package and nothing but it."""

import configparser
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"simulator": "engrax", "rules": "engrax/rules", "networks": "engrax/networks", "results": "engrax/results"}
SOURCES = (*FOLDERS, "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

# Prints, from inside the clean environment, every public name and where the package came from.
IMPORT_ALL = """
import importlib, importlib.util, json, pkgutil
import engrax, engrax.networks, engrax.results, engrax.rules
names = {}
packages = [engrax, engrax.networks, engrax.rules, engrax.results]
packages += [importlib.import_module(m.name)
             for m in pkgutil.walk_packages(engrax.results.__path__, "engrax.results.")]
for package in packages:
    public = getattr(package, "__all__", [])
    names[package.__name__] = [n for n in public if getattr(package, n, None) is not None]
    assert len(names[package.__name__]) == len(public) == len(set(public)), package
every = [importlib.import_module(m.name) for m in pkgutil.walk_packages(engrax.__path__, "engrax.")]
bare = [n for n in ("rules", "networks", "simulator", "results") if importlib.util.find_spec(n)]
print(json.dumps({"names": names, "files": [m.__file__ for m in [engrax, *every]], "bare": bare}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing left over in the checkout gets in and nothing is left there."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, env=_clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and this environment's other packages to depend on."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *install], check=True, env=_clean_environment()
    )
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # A folder named in a .pth file comes after the wheel on the path, and .pth files in it (which is how an editable
    # install is found) are not read.
    others = dict.fromkeys([sysconfig.get_paths()["purelib"], *site.getsitepackages()])
    Path(paths["purelib"], "dependencies.pth").write_text("\n".join(others))
    return python


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=_clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_source_file_and_no_other(wheel: Path) -> None:
    here = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert there == here, "a sub-package is missing from `packages` in setup.cfg" if here - there else "stray files"


def test_the_wheel_holds_the_package_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "engrax/py.typed" in names
    data = [p for pattern in ("expected.json", "README.md", "figure.svg") for p in (ROOT / "results").rglob(pattern)]
    assert {f"engrax/results/{path.relative_to(ROOT / 'results').as_posix()}" for path in data} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_only_engrax_is_installed_at_top_level(wheel: Path) -> None:
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"engrax"}


def test_every_public_name_imports_from_the_wheel(python: Path, tmp_path: Path) -> None:
    found = json.loads(_run(str(python), "-c", IMPORT_ALL, cwd=tmp_path).splitlines()[-1])
    assert all(Path(file).is_relative_to(python.parent.parent) for file in found["files"]), found["files"]
    assert found["bare"] == []
    for package in ("engrax", "engrax.networks", "engrax.rules"):
        assert found["names"][package], package


def test_the_command_is_installed(python: Path, tmp_path: Path) -> None:
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "setup.cfg")
    command = str(python.parent / "engrax")
    assert _run(command, "--version", cwd=tmp_path).split() == ["engrax", metadata["metadata"]["version"]]
    assert "Oja" in _run(command, "list", "rules", cwd=tmp_path)
