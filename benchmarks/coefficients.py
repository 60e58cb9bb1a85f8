"""The coefficients of exp: minimax polynomials by Lawson's method, beside those that the kernels use.

exp(t) = 1 + t·q(t) with q = 1 + t·p(t) for t in [−½ ln 2, ½ ln 2], as ``softnll._kernels.cpu.elementary`` says. What is
looked for is p: the polynomial of a degree whose largest error is smallest, as a part of exp(t). Lawson's method finds
it by weighted least squares on Chebyshev's points, each weight multiplied by its error until all errors are as large
(C. L. Lawson, *Contributions to the theory of linear least maximum approximations*, 1961).

    python benchmarks/coefficients.py
"""

from __future__ import annotations

import numpy as np
from mpmath import mp, mpf

from softnll._kernels.cpu import elementary

HALF = mp.log(2) / 2 * mpf("1.0002")  # n = round(v / ln 2) rounds: t goes a little beyond
POINTS = 120
STEPS = 40
KINDS = {
    "float32": (np.float32, [f"_Q{k}_4" for k in range(2, 7)]),
    "float64": (np.float64, [f"_Q{k}_8" for k in range(2, 12)]),
}


def chebyshev():
    """Return Chebyshev's points in the interval."""
    return [HALF * mp.cos(mp.pi * (2 * i + 1) / (2 * POINTS)) for i in range(POINTS)]


def wanted(t):
    """Return what p approximates, and how much of exp(t) an error of it is."""
    return (mp.expm1(t) - t) / t**2, t**2 / mp.exp(t)


def least_squares(powers, goal, weights):
    """Return the coefficients of the weighted least squares."""
    n = len(powers[0]) // 2
    matrix, right = mp.matrix(n, n), mp.matrix(n, 1)
    for power, value, weight in zip(powers, goal, weights, strict=True):
        for k in range(n):
            right[k] += weight * value * power[k]
            for j in range(n):
                matrix[k, j] += weight * power[k + j]
    return list(mp.lu_solve(matrix, right))


def errors(coefficients, points):
    """Return the relative errors of exp at points, by absolute value."""
    result = []
    for t in points:
        goal, share = wanted(t)
        result.append(abs(share * (mp.polyval(coefficients[::-1], t) - goal)))
    return result


def lawson(n):
    """Return n coefficients, the lowest power's first, and their largest relative error of exp."""
    points = chebyshev()
    powers = [[t**k for k in range(2 * n)] for t in points]
    goal, shares = zip(*(wanted(t) for t in points), strict=True)
    weights = [mpf(1) / POINTS] * POINTS
    for _ in range(STEPS):
        squares = [weight * share**2 for weight, share in zip(weights, shares, strict=True)]
        coefficients = least_squares(powers, goal, squares)
        weights = [weight * error for weight, error in zip(weights, errors(coefficients, points), strict=True)]
        whole = mp.fsum(weights)
        weights = [weight / whole for weight in weights]
    return coefficients, max(errors(coefficients, points))


def main():
    """Print both, and the error of each."""
    mp.prec = 160
    for name, (kind, names) in KINDS.items():
        found, error = lawson(len(names))
        used = [getattr(elementary, each) for each in names]
        rounded = max(errors([mpf(float(each)) for each in used], chebyshev()))
        print(f"{name}: relative error {mp.nstr(error, 3)} = 2^{mp.nstr(mp.log(error, 2), 4)}; ", end="")
        print(f"of those in use, rounded, {mp.nstr(rounded, 3)} = 2^{mp.nstr(mp.log(rounded, 2), 4)}")
        for each, new, old in zip(names, found, used, strict=True):
            apart = abs(kind(float(new)) - kind(old)) / np.spacing(abs(kind(old)))
            print(f"  {each:7} {kind(float(new))!s:25} in use {kind(old)!s:25} ({apart:.0f} ulp apart)")


if __name__ == "__main__":
    main()
