r"""What a linear layer with Gaussian signal and noise can transmit, and what it does transmit.

Input :math:`x = s + n` with covariances qS and qN, output :math:`Z = C x + R` with independent noise of variance b.

(1)  :math:`\mathrm{MI} = \frac12 \ln\det Q_L - \frac12 \ln\det Q_N`, :math:`Q_L = C (q_S + q_N) C^\top + b I`,
     :math:`Q_N = C q_N C^\top + b I`, in nats
(2)  the most that M outputs can transmit at the power :math:`P = \mathrm{tr}\, C (q_S + q_N) C^\top`: over the M
     largest generalised signal-to-noise ratios :math:`s_k` (eigenvalues of :math:`q_N^{-1} q_S`),
     :math:`\mathrm{MI} = \sum_k \frac12 \ln\frac{1 + u_k (1 + s_k)}{1 + u_k}`,
     :math:`P = b \sum_k u_k (1 + s_k)`,
     :math:`u_k = \max\bigl(0, \frac{-(2 + s_k) + \sqrt{s_k^2 + 2 s_k / (\lambda b)}}{2 (1 + s_k)}\bigr)`
     with the price :math:`\lambda` of power found by bisection

(1) is Linsker's measure (Neural Computation 4:691-702, 1992); (2) is the optimum of (1) under the power constraint, the
filter of Atick & Redlich (Neural Computation 2:308-320, 1990) and van Hateren (J. Comp. Physiol. A 171:157-170, 1992).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float

Matrix = Float[np.ndarray, "a b"]
Vector = Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Optimum:
    """(2), over the M channels that the columns of ``channels`` span: filters h_k with :math:`h_k^T q_N h_k = 1`."""

    information: float  # nats
    price: float  # lambda, nats per unit of power
    ratios: Vector  # s_k
    noise_gain: Vector  # u_k
    channels: Matrix


def ring(n: int, width: float) -> tuple[Matrix, Matrix]:
    """White noise on a ring of n inputs, filtered by a Gaussian of this width (in inputs) and scaled to unit variance:
    the filter K and the covariance qS = K K^T."""
    distance = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.exp(-(distance**2) / (2 * width**2))
    filters = scipy.linalg.circulant(kernel / np.linalg.norm(kernel))
    return filters, filters @ filters.T


def information(weights: Matrix, signal: Matrix, noise: Matrix, output_noise: float | Matrix) -> float:
    """(1) in nats; ``output_noise`` is b, or a full covariance."""
    rest = output_noise * np.eye(len(weights)) if np.ndim(output_noise) == 0 else np.asarray(output_noise)
    with_signal = np.linalg.slogdet(weights @ (signal + noise) @ weights.T + rest)[1]
    return float(with_signal - np.linalg.slogdet(weights @ noise @ weights.T + rest)[1]) / 2


def power(weights: Matrix, signal: Matrix, noise: Matrix) -> float:
    """P, the total variance of the noiseless outputs."""
    return float(np.trace(weights @ (signal + noise) @ weights.T))


def optimum(signal: Matrix, noise: Matrix, outputs: int, budget: float, output_noise: float) -> Optimum:
    """(2) for ``outputs`` outputs at the total power ``budget``."""
    ratios, channels = scipy.linalg.eigh(signal, noise)
    order = np.argsort(ratios)[::-1][:outputs]
    s, channels = np.maximum(ratios[order], 0), channels[:, order]
    b = output_noise

    def excess(log_price: float) -> float:
        return float(b * np.sum(noise_gain(s, np.exp(log_price), b) * (1 + s)) - budget)

    # No channel is worth a price above s / 2b(1 + s) < 1 / 2b; at a price near 0 any budget is spent.
    price = float(np.exp(scipy.optimize.brentq(excess, np.log(1e-12 / b), np.log(0.5 / b), xtol=1e-13)))
    u = noise_gain(s, price, b)
    return Optimum(float(np.sum(np.log1p(u * (1 + s)) - np.log1p(u))) / 2, price, s, u, channels)


def noise_gain(ratios: Vector, price: float, output_noise: float) -> Vector:
    r"""u_k of (2), the output variance per output noise that input noise causes in a channel, at a price of power."""
    s = ratios
    return np.asarray(np.maximum(0, (np.sqrt(s**2 + 2 * s / (price * output_noise)) - 2 - s) / (2 * (1 + s))))


def channel_gain(weights: Matrix, noise: Matrix, channels: Matrix, output_noise: float) -> Vector:
    """The noise gain :math:`u_k = |C q_N h_k|^2 / b` that the weights give each channel, to hold against (2)."""
    return np.asarray(np.sum((weights @ noise @ channels) ** 2, axis=0) / output_noise)
