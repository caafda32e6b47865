"""Classifies digits: multinomial logistic regression by L-BFGS, inside a scan, in 64 bits.

The data are the 1797 images of digits in scikit-learn. The script fits a softmax of a linear
function of the pixels with ``optax_ls.lbfgs()``, lets scikit-learn solve the same problem, and
compares the optima. Then ``optax_ls.minimize`` solves it in one call, and a figure shows its
convergence history. Run it with ``make demo``, or with ``python examples/digits.py``.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import optax_ls

ITERATIONS = 200
SHOWN = (0, 1, 2, 5, 10, 20, 50, 100, 200)
C = 1.0  # inverse strength of the penalty, as in scikit-learn
ALLOWED_DIFFERENCE = 1e-8
LARGEST_SLOPE = 1e-9
PICTURE = Path(__file__).parents[1] / "build" / "digits.png"


def load_data():
    """Returns training images and labels, then test images and labels; every pixel is scaled."""
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, random_state=0, stratify=labels
    )
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), train_labels, scaler.transform(test), test_labels


def logits(params, images):
    return images @ params["weights"] + params["bias"]


def objective(params, images, labels):
    """Returns the mean negative log-likelihood plus a penalty on the weights, not on the bias."""
    log_probabilities = jax.nn.log_softmax(logits(params, images))
    likelihood = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)
    penalty = jnp.sum(params["weights"] ** 2) / (2 * C * len(labels))
    return penalty - jnp.mean(likelihood)


def fit(images, labels):
    """Returns the optimal params, the counter's dtypes before and after, and the history."""
    solver = optax_ls.lbfgs()
    value_and_grad = optax_ls.value_and_grad_from_state(objective)

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state, images=images, labels=labels)
        updates, state = solver.update(
            grad,
            state,
            params,
            value=value,
            grad=grad,
            value_fn=objective,
            images=images,
            labels=labels,
        )
        params = optax_ls.apply_updates(params, updates)
        tried = optax_ls.tree.get(state, "num_linesearch_steps")
        return (params, state), (value, optax_ls.tree.norm(grad), tried)

    params = {"weights": jnp.zeros((images.shape[1], 10)), "bias": jnp.zeros(10)}
    before = solver.init(params)
    # One extra step shows the loss after the last of ITERATIONS.
    (params, after), history = jax.lax.scan(step, (params, before), length=ITERATIONS + 1)
    dtypes = [optax_ls.tree.get(state, "num_linesearch_steps").dtype for state in (before, after)]
    return params, dtypes, history


def fit_in_one_call(images, labels):
    """Solves the same problem with ``minimize``, which stops when it has converged."""
    params = {"weights": jnp.zeros((images.shape[1], 10)), "bias": jnp.zeros(10)}
    return optax_ls.minimize(
        objective, params, args=(images, labels), gtol=LARGEST_SLOPE, history=True
    )


def fit_with_scikit_learn(images, labels):
    """Returns the params at scikit-learn's minimum of the same objective."""
    model = LogisticRegression(C=C, solver="lbfgs", tol=1e-12, max_iter=10_000)
    model.fit(images, labels)
    return {"weights": model.coef_.T, "bias": model.intercept_}


def accuracy(params, images, labels):
    best = np.argmax(np.asarray(logits(params, images)), axis=1)
    return float(np.mean(best == labels))


def draw(result):
    """Draws the convergence history of a result, and returns a sentence to print."""
    try:
        figure = optax_ls.plot_history(result)
    except ImportError as error:
        return f"No picture: {error}"
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=150)
    return f"The convergence history is drawn in {PICTURE.parent.name}/{PICTURE.name}."


def main():
    """Fits, prints the results, and returns the numbers."""
    images, labels, test_images, test_labels = load_data()
    print(f"{len(images)} images of digits for training, {len(test_images)} for testing,")
    print(f"{(images.shape[1] + 1) * 10} parameters in {jnp.zeros(0).dtype}.\n")

    print(f"optax_ls.lbfgs() in a jax.lax.scan of {ITERATIONS} iterations:\n")
    params, (before, after), (losses, slopes, tried) = fit(images, labels)
    print("  iteration              loss   |gradient|   steps tried so far")
    for k in SHOWN:
        print(f"  {k:9}  {losses[k]:.14f}   {slopes[k]:10.2e}   {jnp.sum(tried[:k]):18}")

    reference = fit_with_scikit_learn(images, labels)
    ours, theirs = (float(objective(p, images, labels)) for p in (params, reference))
    numbers = {
        "losses": np.asarray(losses),
        "accuracy": accuracy(params, test_images, test_labels),
        "reference_accuracy": accuracy(reference, test_images, test_labels),
        "dtype_before": str(before),
        "dtype_after": str(after),
        "objective": ours,
        "reference_objective": theirs,
        "difference": abs(ours - theirs) / theirs,
    }
    difference = f"{numbers['difference']:.1e}  (at most {ALLOWED_DIFFERENCE:.0e} is allowed)"
    print(f"""
                        optax_ls           scikit-learn
  optimal objective     {ours:.14f}   {theirs:.14f}
  test accuracy         {numbers["accuracy"]:<16.1%}   {numbers["reference_accuracy"]:.1%}

  relative difference   {difference}
  step counter          {before} before the scan, {after} after it

optax_ls.minimize on the same problem:
""")
    result = fit_in_one_call(images, labels)
    numbers["success"] = bool(result.success)
    numbers["difference_in_one_call"] = abs(float(result.value) - theirs) / theirs
    print(indented(result))
    print(f"""
  relative difference   {numbers["difference_in_one_call"]:.1e}  to scikit-learn's optimum

{draw(result)}""")
    return numbers


def indented(result):
    return "\n".join(f"  {line}" for line in str(result).splitlines())


def complaint(numbers):
    """Returns a message if the numbers are wrong, else None."""
    for difference in (numbers["difference"], numbers["difference_in_one_call"]):
        if not difference <= ALLOWED_DIFFERENCE:
            return (
                f"The objectives differ by {difference:.1e}, relative to scikit-learn's; "
                f"at most {ALLOWED_DIFFERENCE:.0e} is allowed. Please report this."
            )
    if not numbers["success"]:
        return "optax_ls.minimize ended without success. Please report this."
    if numbers["dtype_before"] != numbers["dtype_after"]:
        return (
            f"The counter was {numbers['dtype_before']} and became {numbers['dtype_after']}. "
            "Please report this."
        )
    return None


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    sys.exit(complaint(main()))
