"""Logistic regression with only the run-time dependencies, for a machine without a network.

The script fits synthetic data three times: with ``optax_ls.minimize``, with ``optax_ls.lbfgs()`` in
a scan, and with Newton's method in NumPy, which shares no code with the others. Run it with
``python examples/logistic.py``; it fails if the three results disagree.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import optax_ls

POINTS, FEATURES, ITERATIONS = 500, 20, 60
PENALTY = 0.01
ALLOWED_DIFFERENCE = 1e-8


def made_up_data():
    """Returns points, and labels of plus or minus one that a plane separates approximately."""
    random = np.random.default_rng(0)
    points = random.normal(size=(POINTS, FEATURES))
    noise = random.logistic(size=POINTS)
    return points, np.where(points @ random.normal(size=FEATURES) + noise > 0, 1.0, -1.0)


def objective(weights, points, labels):
    losses = jnp.logaddexp(0, -labels * (points @ weights))
    return jnp.mean(losses) + PENALTY * jnp.sum(weights**2) / 2


def fit_in_a_scan(points, labels):
    def fun(weights):
        return objective(weights, points, labels)

    solver = optax_ls.lbfgs()
    value_and_grad = optax_ls.value_and_grad_from_state(fun)

    def step(carry, _):
        weights, state = carry
        value, grad = value_and_grad(weights, state=state)
        updates, state = solver.update(grad, state, weights, value=value, grad=grad, value_fn=fun)
        return (optax_ls.apply_updates(weights, updates), state), None

    start = jnp.zeros(FEATURES)
    (weights, _), _ = jax.lax.scan(step, (start, solver.init(start)), length=ITERATIONS)
    return weights


def fit_with_newton(points, labels):
    weights = np.zeros(FEATURES)
    for _ in range(20):
        wrong = 1 / (1 + np.exp(labels * (points @ weights)))
        grad = -points.T @ (labels * wrong) / POINTS + PENALTY * weights
        curvature = points.T * (wrong * (1 - wrong)) @ points / POINTS
        weights = weights - np.linalg.solve(curvature + PENALTY * np.eye(FEATURES), grad)
    return weights


def main():
    """Prints the three optima and returns the largest relative difference between the weights."""
    data = made_up_data()
    result = optax_ls.minimize(objective, jnp.zeros(FEATURES), args=data, gtol=1e-10)
    print(result)
    optima = {
        "Newton in NumPy": fit_with_newton(*data),
        "optax_ls.minimize": result.params,
        "optax_ls.lbfgs in a scan": fit_in_a_scan(*data),
    }
    reference = optima["Newton in NumPy"]
    differences = []
    print("\n                            objective            difference of the weights")
    for name, weights in optima.items():
        difference = float(np.abs(weights - reference).max() / np.abs(reference).max())
        print(f"  {name:<24}  {objective(weights, *data):.16f}   {difference:.1e}")
        differences.append(difference)
    return np.max(differences)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if not main() <= ALLOWED_DIFFERENCE:
        sys.exit(f"The optima differ by more than {ALLOWED_DIFFERENCE:.0e}. Please report this.")
