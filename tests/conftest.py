"""Strict numerics for the whole suite, and the bench on which every rule is tried."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

# What XLA compiled once it need not compile again: not in another process, nor in the next run of the suite.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.pop("COLUMNS", None)  # that of the terminal, which pytest's workers set: tables are cut to it

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from engrax import Fields, Simulator, locality, networks as nets, together

jax.config.update("jax_enable_x64", True)

hypothesis.settings.register_profile("engrax", deadline=None, max_examples=40, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("engrax")

EDGE = "a->b"


def probe(fields: frozenset[str]) -> nets.Neuron:
    """A neuron whose every field is a port of that name (x is relayed from ``x_in``), so that tests can set them."""

    class Probe(nets.Neuron):
        ports: ClassVar[tuple[str, ...]] = ("sink", "x_in", *sorted(fields - {"x"}))

        def init(self) -> Fields:
            return Fields(x=0.0)

        def step(self, ports: Fields) -> Fields:
            return Fields(x=ports.x_in)

    return Probe()


class Bench:
    """One plastic projection a -> b that ends in a port of its own: what a rule sees is what the test sets.

    ``bench(w, pre, post)`` runs one tick and returns the new weights and the new synaptic state. ``pre`` and ``post``
    map fields to ([batch,] n) arrays.
    """

    def __init__(
        self, rule: Any, n_pre: int, n_post: int, *, topology: Any = None, seed: int = 0, dt: float = 1e-3
    ) -> None:
        read = {name.partition(".")[::2] for name in locality(rule).reads}
        fields = frozenset({"v", "y", "drive"} | {field for group, field in read if group in ("pre", "post")})
        net = nx.MultiDiGraph()
        net.add_node("a", neuron=probe(fields), size=n_pre)
        net.add_node("b", neuron=probe(fields), size=n_post)
        net.add_edge("a", "b", rule=rule, weights=0.0, **({} if topology is None else {"topology": topology}))
        self.fields = fields
        self.sim = Simulator(net, seed=seed, dt=dt)
        self.start = self.sim.state
        self.step = jax.jit(self.sim.step)

    def __call__(
        self,
        w: Any,
        pre: Mapping[str, Any],
        post: Mapping[str, Any],
        *,
        syn: Mapping[str, Any] | None = None,
        signals: Mapping[str, float] | None = None,
        tick: int = 0,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        sim, layout = self.sim, self.sim._layouts[EDGE]
        sim.state = self.start
        sim.set_weights(EDGE, w)
        drive = {
            f"{name}.{'x_in' if field == 'x' else field}": np.asarray(values, float)[None]
            for name, values_of in (("a", pre), ("b", post))
            for field, values in values_of.items()
        }
        sim._match_batch(max((v.shape[1] for v in drive.values() if v.ndim == 3), default=None))
        if syn is not None:
            given = Fields({name: layout.pack(np.asarray(values, float)) for name, values in syn.items()})
            sim.state = eqx.tree_at(lambda s: s.synapses[EDGE].syn, sim.state, given)
        sim.state = eqx.tree_at(lambda s: s.tick, sim.state, jnp.asarray(tick, jnp.int32))
        given = {name: jnp.asarray(values[0]) for name, values in drive.items()}
        sim.state = self.step(sim.model, sim.state, given, signals or {})
        after = {name: np.asarray(value) for name, value in sim.params[EDGE].items()}
        return after.pop("w"), after


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many kernels each call has."""
    found: list[int] = []

    def spy(steps: tuple[Any, ...], *rest: Any) -> Any:
        found.append(len(steps))
        return sequence(steps, *rest)

    sequence = together.sequence
    monkeypatch.setattr(together, "sequence", spy)
    return found
