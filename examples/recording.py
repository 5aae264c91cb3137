"""Record a run to HDF5, stop it, resume it, check it, and analyse it by name: when did each unit find its direction?

Needs the extra `read`: pip install 'engrax[read]'.
"""

import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
import xarray as xr

import engrax
from engrax import Probe, Simulator, networks as nets, probes, rules

rng = np.random.default_rng(0)
directions, _ = np.linalg.qr(rng.normal(size=(8, 8)))
variances = 4 * 2.0 ** -np.arange(8)


def slower(count):  # has a name, so that a recording can name it
    return 1 / (1 + count / 2000)


net = nx.MultiDiGraph()
net.add_node("retina", neuron=nets.Input(), size=8)
net.add_node("cortex", neuron=nets.Linear(), size=3)
net.add_edge("retina", "cortex", rule=rules.Scheduled(rules.Sanger(eta=0.005), schedule=slower))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "run.h5")
    sim = Simulator(net, seed=0)
    length = Probe("retina->cortex.w", every=1000, reduce=probes.norm)
    with sim.record(path, {"cortex.x": 1, "retina->cortex.w": 50, "retina->cortex.length": length}):
        drive = nets.gaussian(directions * np.sqrt(variances), batch=10)
        sim.run({"retina": drive}, 5000, callbacks=[lambda sim: sim.tick >= 2000], chunk=1000)
    print("stopped after", sim.tick, "ticks, resumed to", engrax.resume(path, known=[slower]).tick)
    differences, compared = engrax.verify(path, known=[slower])
    print("run again:", compared, "numbers compared,", len(differences), "fields differ")

    run = engrax.open(path)
    cortex, w = run["cortex"], run["retina->cortex"].w.load()
    print("cortex.x has", dict(cortex.x.sizes))
    print("weights have", dict(w.sizes), "and were taken after ticks", w.tick_50.values[:3], "...")
    print("length of all weights together:", run["retina->cortex"].length.values.round(2))

    variance = cortex.x.isel(tick=slice(-1000, None)).var(("tick", "batch"))
    print("variance of each unit's output:", variance.values.round(1), "; eigenvalues:", variances[:3])

    truth = xr.DataArray(directions[:, :3], dims=("pre", "post"))
    cosine = abs((w * truth).sum("pre")) / np.sqrt((w**2).sum("pre"))
    for unit in w.post.values:
        late = cosine.sel(post=unit).where(cosine.sel(post=unit) < 0.9, drop=True)
        last = 0 if late.size == 0 else int(late.tick_50[-1]) + 1
        print(f"unit {unit}: |cosine| with PC{unit + 1} {float(cosine[-1, unit]):.2f} at the end,", end=" ")
        print("above 0.9 for good after", round(last, -2), "ticks")

    edge = run.attrs["network"]["projections"]["retina->cortex"]
    print("made by", edge["rule"]["rule"]["class"], f"({edge['locality']} level), seed", run.attrs["seed"])
    run.close()
