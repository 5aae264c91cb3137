"""Writes docs/rules.md from the rules themselves: python docs/make_rules.py"""

import inspect
import re
import sys
from pathlib import Path

from engrax import Fields, locality, rules

HEAD = """# Rules

Every rule of `engrax.rules`. The equations are printed from the code that runs (`rule.latex()`), the locality is
derived from it (`engrax.locality(rule)`), and this page is written by `python docs/make_rules.py`.

In an equation *i* is the post and *j* the pre neuron; names in roman type are hyper-parameters, fields of a neuron
(`drive`, what arrived at that port), synaptic state (with both indices) or broadcast signals. An arrow is an
assignment: to the rule's synaptic state, or to the weight after its change was added. *A* is a sum over all afferents
of the post neuron, *E* one over the efferents of the pre neuron up to and including this one. `theta=...` are the
coefficients of a rule that is there to be learned.
"""

NETWORK = """These are not local, and are there to hold the others against. All but `Metz2018Released`, which is learned
itself, follow the gradient of what outputs are told, through the network's own tick. Their equations are in their
docstrings (`help(rules.RTRL)`); each takes an `optimiser=`, any of optax, `optax.sgd` by default."""


def render() -> str:
    listed = [getattr(rules, name) for name in rules.__all__]
    concrete = [
        c for c in listed if inspect.isclass(c) and issubclass(c, rules.LocalRule) and not inspect.isabstract(c)
    ]
    network = [
        c for c in listed if inspect.isclass(c) and issubclass(c, rules.NetworkRule) and not inspect.isabstract(c)
    ]
    wrappers = [c for c in concrete if issubclass(c, rules.Wrapper) and c is not rules.Wrapper]
    plain = [c for c in concrete if not issubclass(c, rules.Wrapper)]
    lines = [HEAD, "## Learning rules", "", "| rule | equations | locality | source |", "|---|---|---|---|"]
    lines += [_row(c, c(), _source(c)) for c in plain]
    lines += ["", "## Wrappers", "", "A wrapper is a rule around a rule; here each is around `Hebb`.", ""]
    lines += ["| wrapper | equations | locality | what it does |", "|---|---|---|---|"]
    lines += [_row(c, c(rules.Hebb()), _summary(c)) for c in wrappers]
    lines += ["", "## Network rules", "", NETWORK, ""]
    lines += ["| rule | what it does | locality | source |", "|---|---|---|---|"]
    lines += [f"| {_name(c())} | {_summary(c)} | {locality(c()).level} | {_source(c)} |" for c in network]
    return "\n".join(lines) + "\n"


def _row(cls: type, rule: rules.LocalRule, last: str) -> str:
    # A bar would end the cell, so absolute values are written in words.
    equations = "<br>".join(f"$`{_cell(line)}`$" for line in rule.latex().splitlines())
    return f"| {_name(rule)} | {equations} | {locality(rule).level} | {last} |"


def _name(rule: object) -> str:
    arguments = [f"{k}={_short(v)}" for k, v in vars(rule).items() if k not in ("rule", "optimiser")]
    return f"`{type(rule).__name__}({', '.join(arguments)})`"


def _cell(latex: str) -> str:
    return latex.replace(r"\left|", r"\left\vert ").replace(r"\right|", r"\right\vert ")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Fields):
        return "..."
    return getattr(value, "__name__", repr(value)).replace("<lambda>", "...")


def _source(cls: type) -> str:
    """What follows "Source:" in the file's docstring, up to the next paragraph or remark of its own."""
    text = " ".join((inspect.getdoc(sys.modules[cls.__module__]) or "").split())
    found = re.search(r"Sources?: (.*?\(.*?\d{4}\))(; (?:the|Bell).*?\(\d{4}\))?", text)
    if found is None:
        raise ValueError(f"the file of {cls.__name__} names no source")
    return found[1] + (found[2] or "")


def _summary(cls: type) -> str:
    """The first sentence of the class, its mathematics and code as GitHub's markdown writes them."""
    text = re.split(r"(?<=[^.]\.)\s", " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()))[0]
    parts = re.split(r"(:math:`[^`]*`)", text)
    shown = (f"$`{_cell(p[7:-1])}`$" if p.startswith(":math:") else p.replace("``", "`") for p in parts)
    return "".join(shown).replace("|w_", r"\vert w_").replace("}|^p", r"}\vert^p")


if __name__ == "__main__":
    Path(__file__).with_name("rules.md").write_text(render(), "utf-8")
