"""A rule's equations in LaTeX: its trace interpreted over sympy's expressions.

Imported when something is printed: sympy takes half a second.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from sympy.core.function import Application

from ..networks.fields import parameters
from .base import LocalRule
from .equations import NoWord, Part, RuleError, inline, trace
from .scalars import elements, scalars


def expressions(rule: LocalRule, part: Part = "evaluate", digits: int | None = None) -> dict[str, sympy.Expr]:
    """The outputs of one part of a rule as sympy expressions of one synapse (post neuron i, pre neuron j).

    ``digits``: with the hyper-parameters' values in place of their symbols, as sums of terms rounded to so many digits.
    Raises `RuleError` naming the operation where sympy has no word for it.
    """
    try:
        traced = scalars(trace(rule, part), _SYMPY)
    except NoWord as error:
        raise RuleError(f"{type(rule).__name__} uses '{error}', for which there is no symbol in an equation") from None
    symbols = _symbols(traced.inputs)
    if digits is not None:
        arrays = {name.rpartition(".")[0] for name in traced.inputs}  # and what else has names within
        own: dict[str, Any] = {}
        for name, value in parameters(rule).items():
            if np.ndim(value) == 0 or f"rule.{name}" in arrays:
                own |= elements(f"rule.{name}", value)
        named = zip(traced.inputs, symbols, strict=True)
        symbols = [_number(own[name]) if name in own else symbol for name, symbol in named]

    def apply(equation: Any, values: list[Any]) -> Any:
        name = equation.primitive.name
        if name == "convert_element_type":
            return values[0]
        if name == "integer_pow":
            return values[0] ** equation.params["y"]
        return _SYMPY[name](*values)

    results = inline(traced.jaxpr.jaxpr, symbols, apply, _number, tuple(traced.jaxpr.consts))
    if digits is not None:
        results = [_rounded(result, digits) for result in results]
    return dict(zip(traced.outputs, results, strict=True))


def latex(rule: LocalRule, digits: int | None = None) -> str:
    """See `LocalRule.latex`."""

    def shown(expression: sympy.Expr) -> str:
        return str(sympy.latex(sympy.factor_terms(expression) if digits is None else expression))

    pooled = expressions(rule, "pooled", digits)
    lines = []
    if "afferent" in pooled:
        lines.append((r"A_{i}", r"\sum_{k} " + _sum(pooled["afferent"], "j")))
    if "efferent" in pooled:
        lines.append((r"E_{ij}", r"\sum_{k \le i} " + _sum(pooled["efferent"], "i")))
    for name, expression in expressions(rule, "evaluate", digits).items():
        if name == "dw":
            lines.append((r"\Delta w_{ij}", shown(expression)))
        elif expression != _symbol(name):
            lines.append((sympy.latex(_symbol(name)) + r" \leftarrow", shown(expression)))
    constraint = expressions(rule, "constrained", digits)["w"]
    if constraint != _symbol("w"):
        total = expressions(rule, "constraint_pooled", digits).get("afferent")
        if total is not None:
            lines.append((r"A_{i}", r"\sum_{k} " + _sum(total, "j")))
        lines.append((r"w_{ij} \leftarrow", sympy.latex(constraint)))
    return "\n".join(left + (" " if left.endswith("leftarrow") else " = ") + right for left, right in lines)


def _symbol(name: str) -> sympy.Symbol:
    group, _, field = name.rpartition(".")
    special = {"w": "w_{ij}", "afferent": "A_{i}", "efferent": "E_{ij}", "noise": r"\xi_{ij}", "dt": r"\mathrm{d}t",
               "released": r"\mathrm{released}_{ij}"}  # fmt: skip
    if not group and field in special:
        return sympy.Symbol(special[field], real=True)
    if field.replace(",", "").isdigit():  # one of several numbers by the name of them all
        return sympy.Symbol(f"{_symbol(group.rpartition('.')[2])}_{{{field}}}", real=True)
    base = sympy.latex(sympy.Symbol(field))
    if "_" in field or (len(field) > 1 and base != "\\" + field):  # sympy would read apical as api in calligraphic
        word = field.replace("_", r"\,")
        base = rf"\mathrm{{{word}}}"
    index = {"pre": "j", "post": "i", "syn": "ij"}.get(group)
    return sympy.Symbol(f"{base}_{{{index}}}" if index else base, real=True)


def _symbols(inputs: tuple[str, ...]) -> list[sympy.Symbol]:
    """Hyper-parameters of nested wrappers may share a name: the later ones get primes."""
    taken: dict[sympy.Symbol, int] = {}
    symbols = []
    for name in inputs:
        symbol = _symbol(name)
        count = taken.get(symbol, 0)
        taken[symbol] = count + 1
        symbols.append(sympy.Symbol(symbol.name + "'" * count, real=True) if count else symbol)
    return symbols


def _number(value: Any) -> sympy.Expr:
    number = np.asarray(value).item()
    if isinstance(number, bool):
        return sympy.true if number else sympy.false
    if np.isinf(number):
        return sympy.oo if number > 0 else -sympy.oo
    return sympy.Integer(int(number)) if float(number).is_integer() else sympy.Float(str(np.float32(number)))


def _rounded(expression: sympy.Expr, digits: int) -> sympy.Expr:
    """A sum of terms whose largest coefficient has so many digits and the others no finer ones: what is less is not
    there. Numbers elsewhere have so many digits each."""
    if not isinstance(expression, sympy.Expr) or expression.has(sympy.oo, -sympy.oo, sympy.nan):
        return expression
    whole = {f: sympy.Dummy() for f in expression.atoms(Application)}  # what functions are of is no term
    expanded = sympy.expand(expression.xreplace(whole), power_base=False, power_exp=False)
    within = {dummy: f for f, dummy in whole.items()}
    terms = [term.as_coeff_Mul() for term in sympy.Add.make_args(expanded)]
    largest = max(abs(float(coefficient)) for coefficient, _ in terms)
    if largest == 0:
        return sympy.Integer(0)
    places = digits - 1 - int(np.floor(np.log10(largest)))

    def short(factor: sympy.Expr) -> sympy.Expr:
        factor = factor.xreplace(within)
        return factor.xreplace({f: _number(float(f"{float(f):.{digits}g}")) for f in factor.atoms(sympy.Float)})

    return sympy.Add(*(_number(round(float(coefficient), places)) * short(rest) for coefficient, rest in terms))


def _sum(expression: sympy.Expr, index: str) -> str:
    """The summand with the summed index renamed to k."""
    renamed = {}
    for symbol in expression.free_symbols:
        head, _, tail = str(symbol).rpartition("_{")
        if head and tail.rstrip("}") in (index, "ij"):
            renamed[symbol] = sympy.Symbol(f"{head}_{{{tail.rstrip('}').replace(index, 'k')}}}", real=True)
    return str(sympy.latex(expression.subs(renamed)))


class _Logistic(sympy.Function):  # type: ignore[misc]
    """A name in print and a number in arithmetic."""

    def _eval_evalf(self, prec: int) -> sympy.Expr:
        return (1 / (1 + sympy.exp(-self.args[0])))._eval_evalf(prec)

    def _latex(self, printer: Any) -> str:
        return rf"\sigma{{\left({printer._print(self.args[0])} \right)}}"


_SYMPY: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "add_any": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "copy": lambda a: a,
    "stop_gradient": lambda a: a,
    "pow": lambda a, b: a**b,
    "square": lambda a: a**2,
    "sqrt": sympy.sqrt,
    "rsqrt": lambda a: 1 / sympy.sqrt(a),
    "cbrt": sympy.cbrt,
    "exp": sympy.exp,
    "exp2": lambda a: sympy.Integer(2) ** a,
    "expm1": lambda a: sympy.exp(a) - 1,
    "log": sympy.log,
    "log1p": lambda a: sympy.log(1 + a),
    "tanh": sympy.tanh,
    "logistic": _Logistic,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "atan": sympy.atan,
    "erf": sympy.erf,
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "max": sympy.Max,
    "min": sympy.Min,
    "clamp": lambda low, a, high: sympy.Max(low, sympy.Min(a, high)),
    "rem": sympy.Mod,
    "gt": sympy.Gt,
    "lt": sympy.Lt,
    "ge": sympy.Ge,
    "le": sympy.Le,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
    "and": sympy.And,
    "or": sympy.Or,
    "not": sympy.Not,
    "select_n": lambda condition, false, true: sympy.Piecewise((true, _truth(condition)), (false, True)),
}


def _truth(condition: Any) -> Any:
    return condition if isinstance(condition, sympy.logic.boolalg.Boolean) else sympy.Ne(condition, 0)
