"""``minimize``: L-BFGS with the loop inside, for those who want the minimum of a function."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Literal, Optional, Union

import chex
import jax
import numpy as np

from .._core import checks, numerics
from .._core.linesearch import driver
from .._core.linesearch.backtracking import Backtracking
from .._core.linesearch.driver import LineSearch
from .._core.linesearch.more_thuente import MoreThuente
from .._core.linesearch.zoom import Zoom
from .._core.types import Params, ParamsType
from .bounds import Bounds
from .flatten import on_one_device
from .guards import ErrorsEndHere, transfers_and_infinities_allowed
from .host import solve
from .implicit import solve_with_derivatives
from .programs import Inputs, Settings
from .reporting import IterationInfo, Reporter
from .result import MinimizeResult
from .state import MinimizeState
from .termination import Limits


def minimize(
    fun: Callable[..., Any],
    params: ParamsType,
    *,
    bounds: Any = None,
    args: tuple[Any, ...] = (),
    kwargs: Optional[dict[str, Any]] = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    memory_size: int = 10,
    linesearch: Union[Literal["more_thuente", "zoom", "backtracking"], LineSearch] = "more_thuente",
    max_linesearch_steps: Optional[int] = None,
    gtol: Optional[chex.Numeric] = None,
    ftol: Optional[chex.Numeric] = None,
    max_iters: chex.Numeric = 15000,
    max_evals: Optional[chex.Numeric] = None,
    callback: Optional[Callable[[IterationInfo], Any]] = None,
    progress: bool = False,
    history: bool = False,
    state: Optional[MinimizeState] = None,
    implicit_diff: bool = False,
) -> MinimizeResult[ParamsType]:
    r"""Minimises a function with L-BFGS.

    The loop is one compiled program with one copy of the objective. It is compiled once for a
    function and the shapes and dtypes of its arguments, so define the function once and pass data
    in ``args`` or ``kwargs``. The host runs it in slices of a fraction of a second, so that Ctrl-C
    ends a run at once. It works under :func:`jax.jit`, :func:`jax.vmap` and :func:`jax.lax.scan`,
    where it is one program from start to end, and with sharded params. Its numbers do not depend
    on ``callback``, ``progress`` and ``history``.

    Args:
        fun: the objective, ``fun(params, *args, **kwargs)``. It returns a real scalar.
        params: where to start; any tree of real or complex floats.
        bounds: a tuple ``(lower, upper)``. Each is None, a number, or a tree of numbers or arrays
            that is a prefix of the tree of params and broadcasts to its leaves; None and infinities
            leave entries open. An object with ``lb`` and ``ub``, as ``scipy.optimize.Bounds``, will
            do. Bounds get the dtypes of the params. They may be traced, and other bounds compile
            nothing. A start outside is moved to the nearest point inside, and the function is
            only evaluated inside. ``gtol`` then applies to the projected gradient
            ``x - P(x - grad)``.
        args: further positional arguments of ``fun``: trees of arrays, numbers or anything else.
            Anything else should be hashable, or the program is compiled at each call.
        kwargs: keyword arguments of ``fun``, likewise.
        has_aux: whether ``fun`` returns ``(value, aux)``.
        value_and_grad: whether ``fun`` returns its gradient too, as :func:`jax.value_and_grad`
            makes it: ``(value, grad)``, or ``((value, aux), grad)``.
        memory_size: how many pairs of steps and changes of the gradient to keep, at least 1.
        linesearch: ``'more_thuente'``, ``'zoom'``, ``'backtracking'``; or a line search with
            settings of your own, such as ``optax_ls.MoreThuente(30, curv_rtol=0.9)``.
        max_linesearch_steps: the largest number of steps that one search tries; 30 if None.
        gtol: stop when no entry of the gradient is larger than this in absolute value. None is
            eps**(3/4) of the search dtype: 6.4e-6 in float32, 1.8e-12 in float64.
        ftol: stop when one iteration lowers the value by no more than this times the larger of
            the absolute values before and after it; 0 never does. None waits until 8
            iterations have lowered the value by no more than rounding in all.
        max_iters: the largest number of iterations (accepted steps). With ``history=True`` each
            one takes a row, so a smaller limit saves memory.
        max_evals: the largest number of evaluations of ``fun`` with its gradient; None for no
            limit.
        callback: called with an :class:`IterationInfo` at the start and after each iteration; if
            it returns True, of Python, NumPy or JAX, or raises StopIteration, the minimisation
            stops. Any other exception ends :func:`minimize` and arrives as it is; inside a trace,
            JAX wraps it.
        progress: show a bar, with tqdm if that is installed, else lines on stderr.
        history: keep the convergence history, see :class:`History`.
        state: the ``state`` of an earlier result for the same function, to go on from there. The
            values of ``params`` are then ignored, and limits count from there.
        implicit_diff: make the params, the value and ``aux`` of the result differentiable with
            respect to the arrays in ``args``, ``kwargs`` and ``bounds`` by the implicit function
            theorem, in forward and reverse mode, any number of times. It costs one more evaluation.

    Returns:
        A :class:`MinimizeResult`. Its value is never higher than that at the start, and nothing in
        it is NaN or infinite if the start was finite.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range; params that are no
            floats; a function that returns no real scalar, or not what was announced; a state of
            another problem.
        KeyboardInterrupt: on Ctrl-C. Its attribute ``result`` is the :class:`MinimizeResult` so
            far, whose ``state`` can be resumed; there is none before the first evaluation.

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
    with ErrorsEndHere(), transfers_and_infinities_allowed():
        checks.function("fun", fun)
        checks.float_leaves("params", params)
        if not jax.tree.leaves(params):
            raise TypeError(f"params must hold at least one array, got {checks.shown(params)}")
        if not isinstance(args, tuple):
            raise TypeError(f"args must be a tuple, such as (data,), got {checks.described(args)}")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise TypeError(f"kwargs must be a dictionary, got {checks.described(kwargs)}")
        for name, tree in (("fun", fun), ("args", args), ("kwargs", kwargs)):
            checks.dtypes_of_jax(name, tree)
        checks.whole_number("memory_size", memory_size, at_least=1)
        checks.number("gtol", gtol, at_least=0, optional=True)
        checks.number("ftol", ftol, at_least=0, optional=True)
        checks.whole_number("max_iters", max_iters, at_least=0)
        if max_evals is not None:
            checks.whole_number("max_evals", max_evals, at_least=1)
        if max_linesearch_steps is not None:
            checks.whole_number("max_linesearch_steps", max_linesearch_steps, at_least=1)
        if callback is not None:
            checks.function("callback", callback, "an IterationInfo")
        search = _search(linesearch, max_linesearch_steps)
        if history and isinstance(max_iters, jax.core.Tracer):
            raise ValueError(
                "history=True needs to know how many rows: max_iters must not be traced"
            )

        if gtol is None:
            gtol = float(np.finfo(numerics.search_dtype(params)).eps) ** 0.75
        limits = Limits(
            gtol=_limit(float, gtol),
            ftol=None if ftol is None else _limit(float, ftol),
            num_iters=_limit(numerics.countable, max_iters),
            num_evals=_limit(numerics.countable, sys.maxsize if max_evals is None else max_evals),
        )
        inputs = Inputs(args, kwargs or {})
        settings = Settings(
            search=search,
            memory_size=int(memory_size),
            has_aux=bool(has_aux),
            gives_grad=bool(value_and_grad),
            rows=int(max_iters) + 1 if history else 0,
            joins_leaves=on_one_device((fun, params, inputs, state)),
        )
        if state is not None:
            _check_state(state, params, settings)
        report = _reporter(callback, progress, max_iters)
        box = Bounds.of(bounds, params)
        if state is not None and box is not None and not box.contain(state.memory.params):
            raise ValueError("state.memory.params are outside the bounds: begin anew without state")
        if implicit_diff:
            return solve_with_derivatives(fun, params, inputs, settings, box, limits, state, report)
        return solve(fun, params, inputs, settings, box, limits, state, report)


_SEARCHES: dict[str, Union[MoreThuente, Zoom, Backtracking]] = {
    # A curvature condition tighter than the usual 0.9 gives better pairs for few more evaluations.
    "more_thuente": MoreThuente(30, curv_rtol=0.45),
    "zoom": Zoom(30),
    "backtracking": Backtracking(30, decrease_factor=0.5),
}


def _limit(number: Callable[[chex.Numeric], Any], value: Any) -> Any:
    """A limit as a number of Python, which starts no work on a device; or traced."""
    return value if isinstance(value, jax.core.Tracer) else number(value)


def _search(linesearch: Union[str, LineSearch], max_steps: Optional[int]) -> LineSearch:
    if isinstance(linesearch, str):
        checks.one_of("linesearch", linesearch, tuple(_SEARCHES))
        search = _SEARCHES[linesearch]
        return search if max_steps is None else dataclasses.replace(search, max_steps=max_steps)
    driver.check("linesearch", linesearch, f"one of {', '.join(map(repr, _SEARCHES))}, or ")
    if max_steps is not None:
        raise ValueError(
            "max_linesearch_steps is for a search given by name; the "
            f"{type(linesearch).__name__} that was given has its own limit"
        )
    return linesearch


def _reporter(
    callback: Optional[Callable[[IterationInfo], object]], progress: bool, max_iters: chex.Numeric
) -> Optional[Reporter]:
    if callback is None and not progress:
        return None
    shows_total = progress and not isinstance(max_iters, jax.core.Tracer)
    return Reporter(callback, bool(progress), int(max_iters) if shows_total else None)


def _check_state(state: MinimizeState, params: Params, settings: Settings) -> None:
    checks.state_of("minimize", state, MinimizeState)
    checks.same_structure("params", params, "state.memory.params", state.memory.params, dtypes=True)
    size = len(state.memory.weights_memory)
    if size != settings.memory_size:
        raise ValueError(
            f"state has a memory of {size} pairs, memory_size is {settings.memory_size}"
        )
    counter = jax.dtypes.canonicalize_dtype(int)
    if state.num_iters.dtype != counter:
        raise TypeError(
            f"the counters of state have dtype {state.num_iters.dtype}, {counter} is needed: the "
            "state was made with another setting of jax_enable_x64"
        )
    needed = jax.eval_shape(settings.search.start, *(np.float32(1),) * 3)
    if type(needed) is not type(state.search):
        raise ValueError(
            f"state is in the middle of another line search: it holds a "
            f"{type(state.search).__name__}, linesearch needs a {type(needed).__name__}"
        )
