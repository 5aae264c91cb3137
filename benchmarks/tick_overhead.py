"""What does a tick cost when there is next to nothing to compute, and how long until the first one?

Input(10) -> Rate(10) with a recurrent projection (delay 1), both dense and under Oja's rule. Driven by a function of
the tick and by an array; beside it the same tick by hand in a ``lax.scan`` and in numpy. What a new process waits for
(import, Simulator, first run with its compilation) is measured in new processes, and the cost of calling ``run`` for
one tick in this one.
"""

import json
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from common import agree, arguments, clock, in_turn, report

from engrax import Simulator, networks as nets, rules

N = 10
ETA = 1e-3
# Sums of ten products: rounding of 1e-7 a tick, which the stable run forgets. A missing delay gives 1e-2.
TOLERANCE = 1e-4
START = """
import json, sys, time
begun = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import engrax
imported = time.perf_counter()
import tick_overhead
net = tick_overhead.network(*tick_overhead.weights())
start = time.perf_counter()
sim = engrax.Simulator(net)
made = time.perf_counter()
sim.run({"in": tick_overhead.constant}, ticks=100)
ran = time.perf_counter()
print(json.dumps({"import": imported - begun, "Simulator": made - start, "first_run": ran - made}))
"""


def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.3, (N, N)).astype(np.float32), rng.normal(0, 0.1, (N, N)).astype(np.float32)


def network(forward: np.ndarray, recurrent: np.ndarray) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=N)
    net.add_node("out", neuron=nets.Rate(), size=N)
    net.add_edge("in", "out", rule=rules.Oja(eta=ETA), weights=forward)
    net.add_edge("out", "out", rule=rules.Oja(eta=ETA), weights=recurrent, delay=1)
    return net


def constant(index: Any, key: Any) -> Any:
    return jnp.cos(jnp.arange(N) + 0.01 * index)


def by_hand(state: Any, index: Any) -> Any:
    forward, recurrent, x = state
    d = constant(index, None)
    y = jnp.tanh(forward @ d + recurrent @ x)
    forward = forward + ETA * y[:, None] * (d - y[:, None] * forward)
    recurrent = recurrent + ETA * y[:, None] * (x - y[:, None] * recurrent)
    return (forward, recurrent, y), None


def in_numpy(forward: np.ndarray, recurrent: np.ndarray, rows: np.ndarray) -> np.ndarray:
    forward, recurrent, x = forward.copy(), recurrent.copy(), np.zeros(N, np.float32)
    for d in rows:
        y = np.tanh(forward @ d + recurrent @ x)
        forward += ETA * y[:, None] * (d - y[:, None] * forward)
        recurrent += ETA * y[:, None] * (x - y[:, None] * recurrent)
        x = y
    return forward


def main() -> None:
    quick = arguments(__doc__ or "")
    ticks, rounds = (1000, 3) if quick else (100_000, 9)
    first, second = weights()
    rows = np.asarray(jax.vmap(lambda index: constant(index, None))(jnp.arange(ticks)))
    driven, fed, short = (Simulator(network(first, second)) for _ in range(3))
    hand = jax.jit(lambda state, start: jax.lax.scan(by_hand, state, start + jnp.arange(ticks))[0])
    state = (jnp.asarray(first), jnp.asarray(second), jnp.zeros(N, jnp.float32))

    driven.run({"in": constant}, ticks=ticks)
    fed.run({"in": rows})
    agree("array drive", driven.params["in->out"].w, fed.params["in->out"].w, TOLERANCE)
    agree("by hand", driven.params["in->out"].w, hand(state, 0)[0], TOLERANCE)
    agree("numpy", driven.params["in->out"].w, in_numpy(first, second, rows), TOLERANCE)

    seconds = in_turn(
        {
            "engrax_function": partial(clock, lambda: (driven.run({"in": constant}, ticks=ticks), driven.state)[1]),
            "engrax_array": partial(clock, lambda: (fed.run({"in": rows}), fed.state)[1]),
            "jax_by_hand": partial(clock, lambda: hand(state, 0)),
            "numpy": partial(clock, lambda: in_numpy(first, second, rows[: ticks // 100])),
            "one_call": partial(clock, lambda: (short.run({"in": constant}, ticks=1), short.state)[1]),
        },
        rounds,
    )
    one_call = seconds.pop("one_call")
    seconds["numpy"] *= 100
    tick = {name: 1e6 * value / ticks for name, value in seconds.items()}
    starts = [start() for _ in range(1 if quick else 3)]
    result = {
        "neurons": 2 * N,
        "ticks": ticks,
        "us_per_tick": tick,
        "us_per_call_of_run": 1e6 * one_call,
        "seconds_to_start": {part: statistics.median(s[part] for s in starts) for part in starts[0]},
        "targets": {"10 us a tick": tick["engrax_function"]},
    }
    report("tick_overhead", quick, result)


def start() -> dict[str, float]:
    """Seconds that a new process spends on each step to its first result."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", START, str(sys.path[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts | {"process": time.perf_counter() - begun}


if __name__ == "__main__":
    main()
