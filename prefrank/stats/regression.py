"""Logistic regression without intercept, of weighted and soft labels, with what each unit moves a coefficient by.

scikit-learn's has no influences, so no errors that are robust to clusters, and statsmodels' takes no weights with them.
"""

import math

import numpy as np
from jaxtyping import Float64


def sigmoid(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return 0.5 * (1 + np.tanh(x / 2))


def sigmoid_of(x: float) -> float:
    """The sigmoid of one number."""
    return 0.5 * (1 + math.tanh(x / 2))


def summed_loss(
    logit: Float64[np.ndarray, " n"], label: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"]
) -> float:
    """The weighted sum of log losses of sigmoid(logit) against the labels, in nats."""
    return float(weight @ (label * np.logaddexp(0, -logit) + (1 - label) * np.logaddexp(0, logit)))


def logistic_regression(
    x: Float64[np.ndarray, "n k"], label: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " k"] | None:
    """Coefficients of least log loss, by Newton's method; None where they run away, as under separation."""
    coefficients = np.zeros(x.shape[1])
    for _ in range(40):
        win = sigmoid(x @ coefficients)
        hessian = (x.T * (weight * win * (1 - win))) @ x
        try:
            step = np.linalg.solve(hessian, x.T @ (weight * (label - win)))
        except np.linalg.LinAlgError:
            return None
        before = summed_loss(x @ coefficients, label, weight)
        while summed_loss(x @ (coefficients + step), label, weight) > before + 1e-9 * abs(before):
            step = step / 2
        coefficients = coefficients + step
        if np.abs(step).max(initial=0.0) < 1e-9 * (1 + np.abs(coefficients).max(initial=0.0)):
            return coefficients
    return None


def coefficient_influences(
    x: Float64[np.ndarray, "n k"],
    label: Float64[np.ndarray, " n"],
    weight: Float64[np.ndarray, " n"],
    coefficients: Float64[np.ndarray, " k"],
) -> Float64[np.ndarray, "n k"]:
    """What each unit moves each coefficient by; summed over clusters and squared, the cluster-robust sandwich."""
    win = sigmoid(x @ coefficients)
    return np.linalg.solve((x.T * (weight * win * (1 - win))) @ x, (x.T * (weight * (label - win)))).T


def best_slope(
    x: Float64[np.ndarray, " n"], label: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"], *, most: float
) -> float:
    """The b of least log loss of sigmoid(b x), from 0 to about `most`: the root of the loss' slope, which rises with b.

    Returns:
        inf where the loss only falls as b grows; 0 where x follows the labels no better than chance.
    """

    def slope(b: float) -> float:
        return float(weight @ (x * (sigmoid(b * x) - label)))

    if weight @ np.where(x > 0, x * (1 - label), -x * label) <= 0:  # the slope at b = infinity
        return math.inf
    if slope(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while high < most and slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):  # as near as numbers are
            break
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high
