"""``minimize``: L-BFGS for those who want the minimum of a function and nothing else."""

import dataclasses
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Optional, Union

import chex
import jax
import jax.numpy as jnp
import numpy as np

from .._core import checks, numerics, tree
from .._core import objective as _objective
from .._core.lbfgs.inverse_hessian import inverse_hessian
from .._core.linesearch.backtracking import Backtracking
from .._core.linesearch.driver import LineSearch
from .._core.linesearch.more_thuente import MoreThuente
from .._core.linesearch.zoom import Zoom
from . import loop as _descent
from . import reporting, termination
from . import trial as _trial
from .flatten import Packing, on_one_device
from .result import History, MinimizeResult


def minimize(
    fun: Callable[..., Any],
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Optional[dict[str, Any]] = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    memory_size: int = 10,
    linesearch: Union[str, LineSearch] = "more_thuente",
    max_linesearch_steps: Optional[int] = None,
    gtol: Optional[chex.Numeric] = None,
    ftol: Optional[chex.Numeric] = None,
    max_iters: chex.Numeric = 1000,
    max_evals: Optional[chex.Numeric] = None,
    callback: Optional[Callable[[reporting.IterationInfo], Any]] = None,
    progress: bool = False,
    history: bool = False,
    state: Optional[_trial.MinimizeState] = None,
    implicit_diff: bool = False,
) -> MinimizeResult:
    r"""Minimises a function with L-BFGS.

    The whole loop is one compiled program with one copy of the objective. It is compiled once for
    a function and the shapes and types of its arguments; so define the function once, and hand
    data over in ``args`` or ``kwargs``. It works under :func:`jax.jit`, :func:`jax.vmap` and
    :func:`jax.lax.scan`, and on sharded params.

    Args:
        fun: the objective, ``fun(params, *args, **kwargs)``. It returns a real scalar.
        params: where to start; any tree of real or complex floats.
        args: further positional arguments of ``fun``: trees of arrays, numbers or anything else.
            What is no array or number should have a hash, or the program is compiled each time.
        kwargs: keyword arguments of ``fun``, likewise.
        has_aux: whether ``fun`` returns ``(value, aux)``.
        value_and_grad: whether ``fun`` returns its gradient too, as :func:`jax.value_and_grad`
            makes it: ``(value, grad)``, or ``((value, aux), grad)``.
        memory_size: how many pairs of steps and changes of the gradient to keep, at least 1.
        linesearch: ``'more_thuente'``, ``'zoom'``, ``'backtracking'``; or a core with settings of
            your own, such as ``optax_ls.MoreThuente(30, curv_rtol=0.9)``.
        max_linesearch_steps: how many steps one search may try; 30 if None.
        gtol: stop when no entry of the gradient is larger than this in absolute value. None is
            eps**(3/4) of the search dtype: 6.4e-6 in float32, 1.8e-12 in float64.
        ftol: stop when one iteration lowers the value by no more than this times the larger of
            the absolute values before and after it; 0 never does. None waits until the value has
            not fallen for 10 iterations, restarts, and stops after 10 more.
        max_iters: how many iterations (accepted steps) to make at most.
        max_evals: how many times to evaluate ``fun`` with its gradient at most; None for no limit.
        callback: called on the host with an :class:`IterationInfo` at the start and after each
            iteration; if it returns True, the minimisation stops.
        progress: show a bar, with tqdm if that is installed, else lines on stderr.
        history: keep the course, see :class:`History`.
        state: where to go on, the ``state`` of an earlier result for the same function. The
            values of ``params`` are not looked at then. Limits count from here.
        implicit_diff: make the params, the value and ``aux`` of the result differentiable with
            respect to the arrays in ``args`` and ``kwargs`` by the implicit function theorem, in
            forward and reverse mode, once. It costs one evaluation more.

    Returns:
        A :class:`MinimizeResult`. Its value is never higher than that at the start, and nothing in
        it is NaN or infinite if the start was finite.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range; params that are no
            floats; a function that returns no real scalar, or not what was announced; a state of
            another problem.

    References:
        Liu & Nocedal, On the limited memory BFGS method for large scale optimization,
        Mathematical Programming 45 (1989), 503-528; see :class:`MoreThuente` for the search.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> def rosenbrock(x):
        ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
        >>> result = optax_ls.minimize(rosenbrock, jnp.zeros(5))
        >>> result.params.round(3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
        >>> bool(result.success)
        True
    """
    checks.function("fun", fun)
    checks.float_leaves("params", params)
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, such as (data,), got {type(args).__name__}")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError(f"kwargs must be a dictionary, got {type(kwargs).__name__}")
    checks.whole_number("memory_size", memory_size, at_least=1)
    checks.number("gtol", gtol, at_least=0, optional=True)
    checks.number("ftol", ftol, at_least=0, optional=True)
    checks.whole_number("max_iters", max_iters, at_least=0)
    if max_evals is not None:
        checks.whole_number("max_evals", max_evals, at_least=1)
    if max_linesearch_steps is not None:
        checks.whole_number("max_linesearch_steps", max_linesearch_steps, at_least=1)
    if callback is not None:
        checks.function("callback", callback)
    core = _core(linesearch, max_linesearch_steps)
    if history and isinstance(max_iters, jax.core.Tracer):
        raise ValueError("history=True needs to know how many rows: max_iters must not be traced")

    dtype = numerics.search_dtype(params)
    if gtol is None:
        gtol = float(numerics.finfo(dtype).eps) ** 0.75
    limits = termination.Limits(
        gtol=jnp.asarray(gtol, dtype),
        ftol=None if ftol is None else jnp.asarray(ftol, dtype),
        num_iters=numerics.counter(max_iters),
        num_evals=numerics.counter(sys.maxsize if max_evals is None else max_evals),
    )
    inputs = _Inputs(args, kwargs or {})
    settings = _Settings(
        core=core,
        memory_size=int(memory_size),
        has_aux=bool(has_aux),
        gives_grad=bool(value_and_grad),
        rows=int(max_iters) + 1 if history else 0,
        report=_reporter(callback, progress, max_iters),
        side_by_side=on_one_device((fun, params, inputs, state)),
    )
    if state is not None:
        _check_state(state, params, settings)
    if implicit_diff:
        return _with_implicit_derivatives(fun, params, inputs, settings, limits, state)
    return _solve(fun, params, inputs, settings, limits, state)


class _Inputs(NamedTuple):
    """What ``fun`` is called with, after the params."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What the program of a minimisation depends on, beside functions and shapes."""

    core: LineSearch
    memory_size: int
    has_aux: bool
    gives_grad: bool
    rows: int
    report: Optional[reporting.Reporter]
    side_by_side: bool


_CORES: dict[str, Callable[[int], LineSearch]] = {
    # A curvature tighter than the usual 0.9 pays: better pairs, for few evaluations more.
    "more_thuente": lambda steps: MoreThuente(steps, curv_rtol=0.45),
    "zoom": lambda steps: Zoom(steps),
    "backtracking": lambda steps: Backtracking(steps, decrease_factor=0.5),
}


def _core(linesearch: Union[str, LineSearch], max_steps: Optional[int]) -> LineSearch:
    if isinstance(linesearch, str):
        checks.one_of("linesearch", linesearch, tuple(_CORES))
        return _CORES[linesearch](30 if max_steps is None else max_steps)
    if not all(hasattr(linesearch, name) for name in ("start", "advance")):
        raise TypeError(
            f"linesearch must be one of {', '.join(map(repr, _CORES))}, or a core such as "
            f"optax_ls.MoreThuente(30), got {linesearch!r}"
        )
    if max_steps is not None:
        raise ValueError(
            f"max_linesearch_steps is for a search given by name; {linesearch!r} has its own limit"
        )
    return linesearch


def _reporter(callback: Any, progress: bool, max_iters: Any) -> Optional[reporting.Reporter]:
    if callback is None and not progress:
        return None
    known = progress and not isinstance(max_iters, jax.core.Tracer)
    return reporting.Reporter(callback, bool(progress), int(max_iters) if known else None)


def _check_state(state: Any, params: Any, settings: _Settings) -> None:
    checks.state_of("minimize", state, _trial.MinimizeState)
    checks.same_structure("params", params, "state.memory.params", state.memory.params, dtypes=True)
    size = len(state.memory.weights_memory)
    if size != settings.memory_size:
        raise ValueError(
            f"state has a memory of {size} pairs, memory_size is {settings.memory_size}"
        )
    nothing = settings.core.start(*(jnp.ones(()),) * 3)
    if type(nothing) is not type(state.search):
        raise ValueError(
            f"state is in the middle of another line search: it holds a "
            f"{type(state.search).__name__}, linesearch needs a {type(nothing).__name__}"
        )


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex))


# Programs by function, so that a second call finds what the first compiled. An entry lives as long
# as its function: programs know it only weakly.
_PROGRAMS: "weakref.WeakKeyDictionary[Any, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def _solve(
    fun: Callable[..., Any],
    params: Any,
    inputs: _Inputs,
    settings: _Settings,
    limits: termination.Limits,
    state: Optional[_trial.MinimizeState],
) -> MinimizeResult:
    """Runs the compiled program. Arrays are its inputs; all else it was compiled for."""
    # A callable that is a tree (an Equinox module, a jax.tree_util.Partial) has arrays of its own.
    fun_is_tree = not jax.tree_util.all_leaves([fun])
    leaves, structure = jax.tree.flatten((fun if fun_is_tree else None, inputs))
    arrays = [leaf if _is_array(leaf) else None for leaf in leaves]
    others = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
    try:
        owner: Any = fun
        name: Any = None
        find: Optional[Callable[[], Any]] = None
        if fun_is_tree:
            owner = type(fun)
        elif inspect.ismethod(fun):  # a new object at each access; what it is bound to stays
            owner, name, find = fun.__self__, fun.__func__, weakref.WeakMethod(fun)
        else:
            find = weakref.ref(fun)
        programs = _PROGRAMS.setdefault(owner, {})
        key = (name, settings, structure, others)
        program = programs.get(key)
    except TypeError:  # something has no hash or no weak reference: nothing to find it by later
        programs, key, program = {}, None, None
        find = None if fun_is_tree else lambda: fun
    if program is None:
        program = jax.jit(functools.partial(_run, find, settings, structure, others))
        programs[key] = program
    result: MinimizeResult = program(params, arrays, limits, state)
    return result


def _run(
    find: Optional[Callable[[], Any]],
    settings: _Settings,
    structure: Any,
    others: tuple[Any, ...],
    params: Any,
    arrays: list[Any],
    limits: termination.Limits,
    state: Optional[_trial.MinimizeState],
) -> MinimizeResult:
    """The program: everything that happens under jit."""
    leaves = [b if a is None else a for a, b in zip(arrays, others, strict=True)]
    fun, inputs = jax.tree.unflatten(structure, leaves)
    if find is not None:
        fun = find()
    dtype = numerics.search_dtype(params)
    evaluate = _evaluator(fun, inputs, settings, dtype)
    params = jax.tree.map(jnp.asarray, params)
    packing = Packing.of(params, side_by_side=settings.side_by_side)
    packed = packing.pack(params)
    objective = _objective.trace(
        packing.packed_evaluation(lambda p: evaluate(jax.tree.map(numerics.like, p, params))),
        packed,
    )
    if state is not None:
        checks.same_structure("aux of fun", objective.like.aux, "state.aux", state.aux, dtypes=True)
        state = packing.packed_state(state)
    else:
        state = _trial.start(settings.core, packed, objective.like.aux, settings.memory_size)
    limits = limits._replace(
        num_iters=numerics.add_counters(state.num_iters, limits.num_iters),
        num_evals=numerics.add_counters(state.num_evals, limits.num_evals),
    )
    history = History.empty(settings.rows, dtype) if settings.rows else None
    report = None
    if settings.report is not None:
        tell = settings.report.bind()

        def report(state: _trial.MinimizeState, *happened: jax.Array) -> jax.Array:
            return tell(packing.unpacked_state(state), *happened)

    state, history = _descent.run(settings.core, objective, state, limits, history, report)
    best_params, best_value, best_grad, best_aux = _descent.best(state)
    state = packing.unpacked_state(state)
    return MinimizeResult(
        params=jax.tree.map(numerics.like, packing.unpack(best_params), params),
        value=best_value,
        grad=tree.conj(packing.unpack(best_grad)),
        aux=best_aux,
        num_iters=state.num_iters,
        num_evals=state.num_evals,
        status=state.status,
        state=state,
        history=history,
    )


def _evaluator(
    fun: Callable[..., Any], inputs: _Inputs, settings: _Settings, dtype: Any
) -> Callable[[Any], _objective.Evaluation]:
    return _objective.bind(
        lambda params: fun(params, *inputs.args, **inputs.kwargs),
        {},
        dtype=dtype,
        has_aux=settings.has_aux,
        gives_grad=settings.gives_grad,
        name="fun",
    )


def _with_implicit_derivatives(
    fun: Callable[..., Any],
    params: Any,
    inputs: _Inputs,
    settings: _Settings,
    limits: termination.Limits,
    state: Optional[_trial.MinimizeState],
) -> MinimizeResult:
    """As ``_solve``; the params of the result are differentiable by the implicit function theorem.

    Where grad f(x, theta) = 0 defines x(theta), a change of theta moves x by - H d(grad f), with H
    the inverse Hessian at x. H is applied by conjugate gradients with the L-BFGS matrix as the
    preconditioner.
    """
    frozen_fun, frozen = _frozen(fun), _frozen(inputs)
    result = _solve(frozen_fun, _frozen(params), frozen, settings, limits, _frozen(state))
    x, dtype = result.params, result.value.dtype

    def gradient(parts: Any, fun: Any, inputs: _Inputs) -> Any:
        found = _evaluator(fun, inputs, settings, dtype)(_joined(parts, x))
        return _parts(tree.conj(found.grad))

    def hessian(v: Any) -> Any:
        return jax.jvp(lambda p: gradient(p, frozen_fun, frozen), (_parts(x),), (v,))[1]

    def solve(hessian: Callable[[Any], Any], b: Any) -> Any:
        preconditioner = inverse_hessian(result)
        solution, _ = jax.scipy.sparse.linalg.cg(  # type: ignore[no-untyped-call]
            hessian,
            b,
            tol=float(numerics.finfo(dtype).eps) ** 0.75,
            M=lambda v: _parts(preconditioner(_joined(v, x))),
        )
        return solution

    # Zero, but for its derivatives.
    residual = gradient(_parts(x), fun, inputs)
    residual = tree.sub(residual, _frozen(residual))
    step = jax.lax.custom_linear_solve(hessian, residual, solve, symmetric=True)
    params = _joined(tree.sub(_parts(x), step), x)
    found = _evaluator(fun, inputs, settings, dtype)(params)
    return result._replace(params=params, value=found.value, aux=found.aux)


def _frozen(inputs: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if _is_array(x) else x, inputs)


def _parts(params: Any) -> Any:
    """Real and imaginary parts of complex leaves; real leaves as they are."""
    return jax.tree.map(lambda p: (p.real, p.imag) if jnp.iscomplexobj(p) else p, params)


def _joined(parts: Any, params: Any) -> Any:
    """The inverse of ``_parts``, in the types of ``params``."""
    return jax.tree.map(
        lambda p, part: numerics.like(jax.lax.complex(*part) if jnp.iscomplexobj(p) else part, p),
        params,
        parts,
    )
