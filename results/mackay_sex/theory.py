r"""MacKay's closed forms. Fitness :math:`F = \sum_g x_g` of G genes, :math:`f = F / G`, :math:`\delta f = f - 1/2`; the
better half of the children lives on, and m is the probability that a gene mutates.

.. math::
    \text{with sex:}\quad \frac{dF}{dt} &= \eta \sqrt{G f (1 - f)}, \quad \eta = \sqrt{2 / (\pi + 2)}  \quad (1) \\
    f(t) &= \tfrac12 [1 + \sin(\eta\, t / \sqrt{G})]  \quad (2) \\
    \delta f &\to \tfrac12 \left(1 + 4 m^2 G / \eta^2 \right)^{-1/2}  \quad (3) \\
    \text{without:}\quad \frac{d\,\delta f}{dt} &= -2 m\,\delta f + \sqrt{m / G}  \quad (4) \\
    m_{opt} &= \frac{1}{16\,G\,\delta f^2}, \qquad \max_m \frac{dF}{dt} = \frac{1}{8\,\delta f}  \quad (5) \\
    \delta f &\to \min\left( \frac{1}{2 \sqrt{m G}}, \tfrac12 \right)  \quad (6) \\
    \text{with sex, ours:}\quad \delta f &\to \tfrac12 \left(\frac{1 + 8 m}{1 + 4 m^2 G / \eta^2}\right)^{1/2} \quad (7)

Truncation of a Gaussian to its better half moves the mean by :math:`\sqrt{2/\pi}` standard deviations and leaves
:math:`1 - 2/\pi` of the variance. The variance of the children follows: :math:`\pi m G / 2` without sex, where mutation
adds m G, and :math:`\frac{\pi}{\pi + 2} G f (1 - f)` with it, where a couple's children vary by G f (1 - f) / 2. What
mutation adds is left out of (3); with it the variance is :math:`\frac{\pi}{\pi + 2} G [f (1 - f) + 2 m]`, hence (7).

D. J. C. MacKay, Information Theory, Inference, and Learning Algorithms, Cambridge University Press (2003), chapter 19.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

ETA = np.sqrt(2 / (np.pi + 2))  # 0.6237

Array = Float[np.ndarray, "..."]


def climb(t: Array, genes: int) -> Array:
    """f after so many generations of sex, from 1/2: (2)."""
    return np.asarray(0.5 * (1 + np.sin(np.minimum(ETA * t / np.sqrt(genes), np.pi / 2))))


def time_to(f: float, genes: int) -> float:
    """Generations of sex from 1/2 to f: (2)."""
    return float(np.arcsin(2 * f - 1) * np.sqrt(genes) / ETA)


def best_rate(f: Any, genes: int) -> Any:
    """The rate of mutation at which a population without sex gains most: (5)."""
    return 1 / (16 * genes * (f - 0.5) ** 2)


def fastest(f: Array) -> Array:
    """Bits a generation without sex at the best rate of mutation: (5)."""
    return 1 / (8 * (f - 0.5))


def drift(t: Array, genes: int, f: float) -> Array:
    """f after so many generations without sex, from f, at the best rate of mutation throughout: (5), integrated."""
    return 0.5 + np.sqrt((f - 0.5) ** 2 + t / (4 * genes))


def steady(mutations: Array, genes: int, sexual: bool) -> Array:
    """Where f stays at so many mutations a genome, m G: (3) or (6)."""
    if sexual:
        return np.asarray(0.5 + 0.5 / np.sqrt(1 + 4 * mutations**2 / genes / ETA**2))
    return np.asarray(0.5 + np.minimum(0.5 / np.sqrt(mutations), 0.5))


def varied(mutations: Array, genes: int) -> Array:
    """Where f stays with sex if mutation adds to what selection can choose from: (7)."""
    lost = 4 * mutations**2 / genes / ETA**2
    return np.asarray(0.5 + 0.5 * np.sqrt(np.minimum((1 + 8 * mutations / genes) / (1 + lost), 1)))


def tolerable(f: float, genes: int, sexual: bool) -> float:
    """Mutations a genome, m G, at which f stays: (3) or (6), turned round."""
    left = 0.25 / (f - 0.5) ** 2
    return float(ETA / 2 * np.sqrt(genes * (left - 1))) if sexual else left
