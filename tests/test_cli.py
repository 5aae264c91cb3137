"""The command line, on small scripts and recordings made here."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner, Result

import engrax.results
from engrax import Phase, Simulator, cli, networks, rules, sweep
from engrax.locality import locality

SCRIPT = '''
"""A small run."""
import helper

def run(out, *, seed: int = 0, quick: bool = False, eta: float = 0.5, sizes: tuple[int, ...] = (1, 2),
        steps: int = 3, name: str = "oja", gain: bool = True, model: object = None):
    print("noise on stdout")
    (out / "made.txt").write_text("x")
    return {"seed": seed, "quick": quick, "eta": eta, "nested": {"sizes": list(sizes), "helper": helper.VALUE},
            "steps": steps, "name": name, "gain": gain, "bad": float("nan")}
'''

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "helper.py").write_text("VALUE = 7")
    path = folder / "small.py"
    path.write_text(SCRIPT)
    yield path
    sys.modules.pop("helper", None)
    sys.modules.pop("engrax_script", None)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def refused(*arguments: object, code: int) -> str:
    """The one line with which the command fails."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


# engrax list


def test_list_shows_every_public_rule_neuron_and_topology() -> None:
    output = call("list").output
    first_words = {line.split()[0] for line in output.splitlines() if line.strip()}
    for package, bases in (
        (rules, (rules.Rule, rules.Wrapper)),
        (networks, (networks.Neuron, networks.Topology, networks.Competition)),
    ):
        things = {name: getattr(package, name) for name in package.__all__}
        concrete = {
            n
            for n, c in things.items()
            if isinstance(c, type) and issubclass(c, bases) and c not in bases and not inspect.isabstract(c)
        }
        assert concrete
        assert concrete <= first_words


def test_list_shows_locality_and_marks_wrappers() -> None:
    rows = {line.split()[0]: line.split() for line in call("list", "rules").output.splitlines()}
    assert rows["Oja"][1:3] == ["rule", locality(rules.Oja()).level]
    assert rows["Sanger"][1:3] == ["rule", "population"]
    assert rows["Normalised"][1:3] == ["wrapper", "neuron"]
    assert "signals.reward" in rows["Gated"]
    assert "Wrapper" not in rows
    assert "RuleError" not in rows


def test_list_has_no_markup_and_one_line_each() -> None:
    output = call("list").output
    assert "`" not in output
    assert "\\" not in output
    assert len(call("list", "topologies").output.splitlines()) == 1 + 8


def test_a_new_rule_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fresh(rules.Rule):
        """Copies the pre neuron. More words."""

        def update(self, pre: Any) -> Any:
            return pre.x

    class Needy(rules.Rule):
        """Cannot be made without a number."""

        eta: float

        def update(self, pre: Any) -> Any:
            return self.eta * pre.x

    for cls in (Fresh, Needy):
        monkeypatch.setattr(rules, cls.__name__, cls, raising=False)
    monkeypatch.setattr(rules, "__all__", [*rules.__all__, "Fresh", "Needy"])
    rows = {line.split()[0]: line for line in call("list", "rules").output.splitlines()}
    assert rows["Fresh"].endswith("Copies the pre neuron")
    assert "pre.x" in rows["Fresh"]
    assert rows["Needy"].split()[1:3] == ["rule", "-"]


def test_results_are_found_and_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    folder = tmp_path / "results" / "imaginary2026"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "run.py").write_text(
        '"""A claim. With details."""\n\ndef run(out, *, seed=0):\n    return {"seed": seed}\n'
    )
    monkeypatch.setattr(engrax.results, "__path__", [*engrax.results.__path__, str(tmp_path / "results")])
    rows = [line.split() for line in call("list", "results").output.splitlines()]
    assert ["imaginary2026", "A", "claim"] in rows
    result = call("run", "imaginary2026", "--seed", 4, "--json")
    assert json.loads(result.stdout) == {"seed": 4}
    assert (tmp_path / "imaginary2026").is_dir()
    assert "no --quick" in refused("run", "imaginary2026", "--quick", code=2)
    sys.modules.pop("engrax.results.imaginary2026.run")


# engrax run


def test_run_prints_metrics_and_files_written(script: Path) -> None:
    result = call("run", script)
    assert result.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line and line.split()[1:])
    assert rows["seed"] == "0"
    assert rows["nested.sizes"] == "1, 2"
    assert rows["nested.helper"] == "7"
    assert rows["bad"] == "not finite"
    assert rows["wrote"] == str(Path("small/made.txt"))
    assert Path("small/made.txt").read_text() == "x"


def test_json_is_the_only_line_on_stdout(script: Path, tmp_path: Path) -> None:
    result = call("run", script, "--json", "--out", tmp_path / "deep" / "here", "--quick", "--seed", 3)
    metrics = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (metrics["seed"], metrics["quick"], metrics["bad"]) == (3, True, None)
    assert "noise on stdout" in result.stderr
    assert (tmp_path / "deep" / "here" / "made.txt").exists()


def test_settings_get_the_type_of_their_default(script: Path) -> None:
    settings = ["eta=1e-3", "sizes=4,5,6", "steps=9", "name=a=b", "gain=false"]
    metrics = json.loads(call("run", script, "--json", *(x for s in settings for x in ("--set", s))).stdout)
    assert metrics["eta"] == 1e-3
    assert metrics["nested"]["sizes"] == [4, 5, 6]
    assert metrics["steps"] == 9
    assert metrics["name"] == "a=b"
    assert metrics["gain"] is False


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("etta=1", "no setting 'etta'; settings: eta=0.5, sizes=1,2, steps=3, name=oja, gain=True, model=None"),
        ("seed=1", "no setting 'seed'"),
        ("steps=1.5", "--set steps=1.5: not of type int"),
        ("sizes=1,x", "--set sizes=x: not of type int"),
        ("gain=perhaps", "not of type bool"),
        ("model=1", "cannot be set from the command line"),
        ("eta", "KEY=VALUE"),
    ],
)
def test_a_bad_setting_is_one_clear_line(script: Path, setting: str, said: str) -> None:
    assert said in refused("run", script, "--set", setting, code=2)
    assert not Path("small").exists()


def test_a_script_without_run_is_executed(script: Path) -> None:
    script.write_text("import sys, helper\ndef run(sim): ...\nprint(__name__, sys.argv, helper.VALUE)")
    assert f"__main__ {[str(script)]} 7" in call("run", script).output
    assert "takes no options" in refused("run", script, "--quick", code=2)


@pytest.mark.parametrize(
    "error", ["SimulationError", "RecordingError", "NetworkError", "RuleError", "networks.datasets.DatasetError"]
)
@pytest.mark.parametrize("head", ["def run(out):", "if True:"])
def test_engrax_errors_are_one_line(script: Path, error: str, head: str) -> None:
    script.write_text(f"import engrax.networks.datasets\n{head}\n    raise engrax.{error}('tick 3:\\n w became NaN')")
    assert refused("run", script, code=1) == "Error: tick 3: w became NaN"


def test_other_errors_keep_their_traceback(script: Path) -> None:
    script.write_text("def run(out):\n    return 1 / 0")
    with pytest.raises(ZeroDivisionError):
        call("run", script)


def test_mistakes_in_the_target(script: Path, tmp_path: Path) -> None:
    assert "no result 'nonesuch'; " in refused("run", "nonesuch", code=2)
    assert "no script absent.py" in refused("run", "absent.py", code=2)
    script.write_text("def run(out:")
    assert "is not Python" in refused("run", script, code=2)
    script.write_text("def run(out):\n    return [1]")
    assert "returned list" in refused("run", script, code=1)
    (tmp_path / "taken").touch()
    assert "choose another with --out" in refused("run", script, "--out", tmp_path / "taken", code=2)


def test_exit_codes_reach_the_shell(script: Path) -> None:
    command = [sys.executable, "-c", "from engrax.cli import main; main(prog_name='engrax')", "run", str(script)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 3
    done = subprocess.run([*command, "--set", "nope=1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: small has no setting 'nope'")


# engrax info, engrax plot


def net(pre: Any = 30, m: int = 3) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_node("retina", neuron=networks.Input(), size=pre)
    graph.add_node("cortex", neuron=networks.Linear(), size=m)
    graph.add_edge("retina", "cortex", rule=rules.Bounded(rules.Oja(eta=1e-3), low=-2.0))
    wiring = networks.FixedInDegree(2)
    graph.add_edge("cortex", "cortex", topology=wiring, port="lateral", rule=rules.BCM(eta=1e-6))
    return graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    sim = Simulator(net(), seed=5, dt=2e-3)
    trial = [Phase("sense", 3, "last", hold=True, reset=True, signals={"hebbian": 1.0}), Phase("rest", 2, "never")]
    drive = {"sense": np.ones((20, 30)), "rest": np.zeros((40, 30))}
    with sim.record(folder / "a.h5", {"cortex.x": 1, "retina->cortex.w": 10, "cortex->cortex.theta": 5}):
        sim.run({"retina": drive}, trial=trial)
        sim.run({"retina": drive}, trial=trial)
    return folder


@pytest.fixture
def recording(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return Path("a.h5")


def test_info_tells_what_made_the_recording_and_what_it_holds(recording: Path) -> None:
    lines = call("info", recording).output.splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert "seed 5" in words
    assert "tick 0.002 s" in words
    assert (
        "protocol 20 trials of sense (3 ticks, plastic on the last, drive held, reset, hebbian=1), "
        "then rest (2 ticks, not plastic) (2 runs)"
    ) in words
    assert "retina 30 Input()" in words
    assert (
        "retina->cortex retina.x -> cortex.drive 0 Dense all Bounded(rule=Oja(eta=0.001), low=-2, high=inf) synapse"
    ) in words
    assert any("FixedInDegree (6)" in line and "BCM(" in line for line in words)
    kind = str(Simulator(net()).params["retina->cortex"].w.dtype)
    assert f"cortex.x tick 200 x neuron 3 {kind} 1 0 to 199" in words
    assert f"retina->cortex.w tick_10 20 x post 3 x pre 30 {kind} 1 9 to 199, every 10" in words


def test_info_lists_the_points_of_a_sweep(tmp_path: Path) -> None:
    sim = sweep(net(), {"seed": range(3), "retina->cortex.rule.eta": [1e-3, 1e-2, 1e-1]})
    with sim.record(tmp_path / "s.h5", {"cortex.x": 1}):
        sim.run({"retina": np.ones((4, 30))})
    words = [" ".join(line.split()) for line in call("info", tmp_path / "s.h5").output.splitlines()]
    assert "points 1: seed=0, retina->cortex.rule.eta=0.01" in words
    assert "points ... 9 in all" in words
    assert any("tick 4 x point 9 x neuron 3" in line for line in words)


def test_plot_writes_a_picture_beside_the_file(recording: Path, tmp_path: Path) -> None:
    result = call("plot", recording)
    assert result.output == "a.png\n"
    assert Path("a.png").read_bytes().startswith(PNG)
    assert call("plot", recording, "cortex.x", "-o", tmp_path / "b.svg").output.strip() == str(tmp_path / "b.svg")
    assert "<svg" in (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize("command", ["info", "plot"])
def test_a_file_that_is_no_recording(command: str, tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("no")
    other = tmp_path / "other.h5"
    h5py.File(other, "w").close()
    newer = tmp_path / "newer.h5"
    with h5py.File(newer, "w") as file:
        file.attrs["engrax_format"] = 99
    assert f"{text} is no recording of engrax: it is not an HDF5 file" in refused(command, text, code=2)
    assert f"{other} is no recording of engrax" in refused(command, other, code=2)
    assert "written by a newer engrax" in refused(command, newer, code=2)
    assert "there is no file" in refused(command, tmp_path / "absent.h5", code=2)


def test_plot_mistakes(recording: Path) -> None:
    assert "a.h5 has no field 'cortex.y', nor is that a kind of picture; fields: cortex.x" in refused(
        "plot", recording, "cortex.y", code=2
    )
    assert "cannot be written" in refused("plot", recording, "-o", "a.nonsense", code=2)
    assert "cannot be written" in refused("plot", recording, "-o", "no/where.png", code=2)
