"""Fits a logistic regression on many devices of one or many hosts, and resumes after a host died.

The rows of the data and the weights are spread over all devices. Each process creates only the rows
of its own devices. Every few iterations the script saves the state of the solver with Orbax, so a
resumed run has the same bits as an uninterrupted one. On one host whose processor is divided into
eight devices:

    python examples/many_devices.py --host-devices 8

The same in two processes, as on two hosts, each in its own terminal:

    python examples/many_devices.py --host-devices 4 --coordinator localhost:9911 \\
        --num-processes 2 --process-id 0
    python examples/many_devices.py --host-devices 4 --coordinator localhost:9911 \\
        --num-processes 2 --process-id 1

docs/many-devices.md explains other setups, and the communication between devices.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_ls

try:
    import orbax.checkpoint
except ImportError:
    orbax = None

SEED = 20260101
PENALTY = 1e-4
EVERYWHERE = ("devices",)  # the axis of the mesh


# The problem.


def loss(params, features, labels):
    """Returns the mean negative log-likelihood of labels in {-1, 1}, plus a penalty on weights."""
    margins = labels * (features @ gathered(params["weights"]) + params["bias"])
    return jnp.mean(jax.nn.softplus(-margins)) + PENALTY / 2 * jnp.sum(params["weights"] ** 2)


def gathered(weights):
    """Returns the weights, whole on each device. On automatic axes the compiler does that."""
    sharding = jax.typeof(weights).sharding
    if not any(sharding.spec):
        return weights
    return jax.sharding.reshard(weights, NamedSharding(sharding.mesh, PartitionSpec()))


def make_rows(first, last, num_features):
    """Returns rows ``first`` to ``last`` of features and labels, the same in every process."""
    # Columns of different sizes make the problem ill-conditioned, so a quasi-Newton method helps.
    sizes = np.logspace(0, -1, num_features)
    truth = np.random.default_rng(SEED).standard_normal(num_features) / sizes
    features, labels = np.empty((last - first, num_features)), np.empty(last - first)
    for row in range(first, last):
        rng = np.random.default_rng((SEED, row))
        features[row - first] = sizes * rng.standard_normal(num_features)
        margin = features[row - first] @ truth + rng.logistic(scale=3.0)
        labels[row - first] = 1 if margin > 0 else -1
    return features, labels


def make_data(mesh, num_rows, num_features):
    """Returns features and labels with rows spread over the mesh; each process makes its own."""
    sharding = NamedSharding(mesh, PartitionSpec(EVERYWHERE))

    @functools.cache
    def rows(first, last):
        return make_rows(first, last, num_features)

    def shard(which):
        return lambda index: rows(*index[0].indices(num_rows)[:2])[which]

    shapes = (num_rows, num_features), (num_rows,)
    return tuple(
        jax.make_array_from_callback(shape, sharding, shard(which))
        for which, shape in enumerate(shapes)
    )


def place(tree, mesh):
    """Returns the shardings of a tree: weights, also in a state, are spread over all devices."""

    def sharding(path, leaf):
        if getattr(path[-1], "key", None) != "weights":
            return NamedSharding(mesh, PartitionSpec())
        leading = (None,) * (leaf.ndim - 1)
        return NamedSharding(mesh, PartitionSpec(*leading, EVERYWHERE))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def make_params(mesh, num_features):
    def zeros():
        return {"weights": jnp.zeros(num_features), "bias": jnp.zeros(())}

    return jax.jit(zeros, out_shardings=place(jax.eval_shape(zeros), mesh))()


# Both solvers advance a carry, which is None at first, by k iterations.


class Progress(NamedTuple):
    """The progress of a fit.

    ``carry`` contains everything needed to resume, and is saved. ``ended`` says why the fit has
    stopped; it is empty while the fit continues.
    """

    carry: Any
    params: Any
    iterations: int
    value: float
    grad_norm: float
    ended: str


def minimize(params, data, carry, k):
    """Runs ``optax_ls.minimize`` for k more iterations; its limits count from the given state."""
    # ftol=0 disables the test of the value: the point where the value stops decreasing depends on
    # the order of summation.
    result = optax_ls.minimize(loss, params, args=data, max_iters=k, state=carry, ftol=0)
    limit = optax_ls.MinimizeStatus.ITERATION_LIMIT
    return Progress(
        carry=result.state,
        params=result.params,
        iterations=int(result.num_iters),
        value=float(result.value),
        grad_norm=float(optax_ls.tree.norm(result.grad, jnp.inf)),
        ended="" if int(result.status) == limit else result.message,
    )


SOLVER = optax_ls.lbfgs()


@functools.partial(jax.jit, static_argnames="k")
def scan(params, data, carry, k):
    value_and_grad = optax_ls.value_and_grad_from_state(loss)
    data = dict(zip(("features", "labels"), data, strict=True))

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state, **data)
        updates, state = SOLVER.update(
            grad, state, params, value=value, grad=grad, value_fn=loss, **data
        )
        return (optax_ls.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(step, carry or (params, SOLVER.init(params)), length=k)
    return carry, optax_ls.tree.norm(optax_ls.tree.get(carry, "grad"), jnp.inf)


def lbfgs(params, data, carry, k):
    """Runs ``optax_ls.lbfgs()`` in a scan of k steps; it has no test of convergence."""
    carry, grad_norm = scan(params, data, carry, k)
    params, state = carry
    return Progress(
        carry=carry,
        params=params,
        iterations=int(state[0].count),
        value=float(optax_ls.tree.get(state, "value")),
        grad_norm=float(grad_norm),
        ended="",
    )


SOLVERS = {"minimize": minimize, "lbfgs": lbfgs}


# Saving and resuming.


def open_checkpoints(options):
    """Returns Orbax's manager of the folder, or None without ``--checkpoint-dir``."""
    if options.checkpoint_dir is None:
        return None
    if orbax is None:
        sys.exit("--checkpoint-dir needs Orbax: pip install orbax-checkpoint")
    # Orbax renames a checkpoint into place when it is complete, so an interrupted save leaves none.
    settings = orbax.checkpoint.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    folder = options.checkpoint_dir.absolute()
    manager = orbax.checkpoint.CheckpointManager(folder, options=settings)
    if manager.latest_step() is not None and not options.resume:
        sys.exit(f"{folder} already holds a run: say --resume to continue it, or name another")
    return manager


def last_saved(manager, solver, params, data, mesh):
    """Returns the last saved carry, placed on its devices, and its iteration; or None and 0."""
    step = None if manager is None else manager.latest_step()
    if step is None:
        return None, 0
    like = jax.eval_shape(lambda params, data: carry_of(solver, params, data), params, data)
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        like,
        place(like, mesh),
    )
    return manager.restore(step, args=orbax.checkpoint.args.StandardRestore(like)), step


def carry_of(solver, params, data):
    if solver == "lbfgs":
        return params, SOLVER.init(params)
    return optax_ls.minimize(loss, params, args=data).state


# The run.


def fit(options, say):
    """Fits, saves every ``--every`` iterations, and returns the last :class:`Progress`."""
    kind = jax.sharding.AxisType.Explicit if options.explicit else jax.sharding.AxisType.Auto
    mesh = Mesh(np.array(jax.devices()), EVERYWHERE, axis_types=(kind,))
    say(f"{jax.process_count()} process(es), {mesh.size} devices, {jax.devices()[0].platform}")
    for name in ("rows", "features"):
        if getattr(options, name) % mesh.size:
            sys.exit(f"--{name} must be a multiple of the {mesh.size} devices")
    data = make_data(mesh, options.rows, options.features)
    params = make_params(mesh, options.features)
    manager = open_checkpoints(options)
    carry, iterations = last_saved(manager, options.solver, params, data, mesh)
    if carry is not None:
        say(f"resumed after iteration {iterations}")

    progress = None
    while progress is None or not (progress.ended or progress.iterations >= options.iterations):
        k = min(options.every, max(options.iterations - iterations, 0))
        progress = SOLVERS[options.solver](params, data, carry, k)
        carry, iterations = progress.carry, progress.iterations
        # repr prints enough digits to restore every bit of a float.
        say(f"iteration {iterations}  value {progress.value!r}  |gradient| {progress.grad_norm!r}")
        if manager is not None and iterations > (manager.latest_step() or 0):
            manager.save(iterations, args=orbax.checkpoint.args.StandardSave(carry))
            say(f"saved {iterations}")
    say(progress.ended or "The limit of iterations was reached.")
    return progress


def write_answer(path, progress):
    """Writes params, value, gradient norm and iterations to an .npz file, in process 0."""
    params = multihost_utils.process_allgather(progress.params, tiled=True)
    if jax.process_index() == 0:
        numbers = progress._asdict()
        kept = {name: numbers[name] for name in ("value", "grad_norm", "iterations")}
        np.savez(path, **params, **kept)


def read_options(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_argument_group("processes; each gets the same options except --process-id")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int)
    group.add_argument("--process-id", type=int)
    group.add_argument(
        "--cluster", action="store_true", help="let JAX get these from Slurm, Open MPI or the cloud"
    )
    group.add_argument(
        "--timeout",
        type=int,
        default=100,
        metavar="SECONDS",
        help="a process silent for so long counts as dead, and the others end (default 100)",
    )
    group.add_argument(
        "--host-devices", type=int, metavar="N", help="divide this process's CPU into N devices"
    )
    group = parser.add_argument_group("the fit")
    group.add_argument("--solver", choices=SOLVERS, default="minimize")
    group.add_argument("--rows", type=int, default=4096)
    group.add_argument("--features", type=int, default=64)
    group.add_argument("--iterations", type=int, default=500, help="largest number (default 500)")
    group.add_argument(
        "--every", type=int, default=10, metavar="K", help="print and save every K iterations"
    )
    group.add_argument(
        "--checkpoint-dir", type=Path, help="folder for checkpoints, visible to all processes"
    )
    group.add_argument("--explicit", action="store_true", help="a mesh with explicit axes")
    group.add_argument("--resume", action="store_true", help="continue from the last save")
    group.add_argument("--answer", type=Path, metavar="FILE.npz", help="file for the optimum")
    options = parser.parse_args(arguments)
    for name in ("rows", "features", "iterations", "every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.resume and options.checkpoint_dir is None:
        parser.error("--resume needs --checkpoint-dir")
    return options


def begin(options):
    """Configures JAX before it looks for devices."""
    jax.config.update("jax_enable_x64", True)
    if options.host_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.host_devices)
    processes = options.coordinator, options.num_processes, options.process_id
    if options.cluster or processes != (None, None, None):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            *processes,
            initialization_timeout=options.timeout,
            heartbeat_timeout_seconds=options.timeout,
            shutdown_timeout_seconds=options.timeout,
        )


def main():
    options = read_options()
    begin(options)

    def say(line):
        if jax.process_index() == 0:
            print(line, flush=True)

    try:
        progress = fit(options, say)
        if options.answer is not None:
            write_answer(options.answer, progress)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        sys.exit(
            f"Process {jax.process_index()} ends without an answer, after an error: {reason}\n"
            "Start all processes again; with --checkpoint-dir and --resume they continue from the "
            "last checkpoint."
        )


if __name__ == "__main__":
    main()
