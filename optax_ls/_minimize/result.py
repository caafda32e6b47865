"""The result of ``minimize``: its status, its message, and the table that it prints."""

import enum
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Optional

import jax
import numpy as np
from jax.typing import ArrayLike

from .._core import checks
from .._core.types import Counter, Flag, Params, ParamsType, Scalar
from .history import History

if TYPE_CHECKING:
    from .state import MinimizeState

# Up to so many params are printed; of more, the smallest and the largest.
_FEW = 10
_ARRAYS = jax.Array, np.ndarray, np.generic


class MinimizeStatus(enum.IntEnum):
    """The reason why :func:`minimize` stopped.

    Attributes:
        RUNNING: it has not stopped.
        GRADIENT_SMALL: no entry of the gradient is larger than ``gtol``. A success.
        VALUE_SETTLED: the value has stopped decreasing, by ``ftol`` or up to rounding. A success.
        ITERATION_LIMIT: ``max_iters`` iterations were made.
        EVALUATION_LIMIT: ``max_evals`` evaluations were made.
        SEARCH_FAILED: no lower value was found, not along steepest descent either, although the
            slope predicted one; or for long only along steepest descent, or by short steps at a
            wall of values that are not finite.
        START_NOT_FINITE: something in params, value or gradient at the start is NaN or infinite.
        STOPPED_BY_CALLBACK: the callback returned True or raised StopIteration.
        UNBOUNDED: the value falls without end.
    """

    _message: str

    def __new__(cls, code: int, message: str = "") -> "MinimizeStatus":
        """A member, an integer with a message."""
        status = int.__new__(cls, code)
        status._value_, status._message = code, message
        return status

    RUNNING = 0, "Not finished."
    GRADIENT_SMALL = 1, "The gradient is small: no entry is larger than gtol."
    VALUE_SETTLED = 2, "The value has settled: it has stopped decreasing."
    ITERATION_LIMIT = 3, "Stopped at the limit of iterations, max_iters."
    EVALUATION_LIMIT = 4, "Stopped at the limit of evaluations, max_evals."
    SEARCH_FAILED = 5, "The line search failed: these are the best params found."
    START_NOT_FINITE = (
        6,
        "The start, its value or its gradient is NaN or infinite: start elsewhere.",
    )
    STOPPED_BY_CALLBACK = 7, "Stopped by the callback."
    UNBOUNDED = (
        8,
        "The value falls without end: the function has no minimum. Is its sign right? Is a penalty "
        "or a bound missing?",
    )

    @property
    def success(self) -> bool:
        """True if the params are a minimum, up to the tolerances."""
        return self in (MinimizeStatus.GRADIENT_SMALL, MinimizeStatus.VALUE_SETTLED)

    @property
    def message(self) -> str:
        """The reason in a sentence."""
        return self._message


class _Fields(NamedTuple):
    params: Params
    value: Scalar
    grad: Params
    aux: Any
    num_iters: Counter
    num_evals: Counter
    status: Counter
    state: "MinimizeState"
    history: Optional[History]
    gtol: Optional[Scalar] = None
    active: Any = None


# Python 3.10 has no generic named tuples, so the generic class is made of a named tuple.
class MinimizeResult(_Fields, Generic[ParamsType]):
    """The result of :func:`minimize`, generic in the type of its params.

    Scalars are of the search dtype unless said otherwise. Printed, it is a small table.

    Attributes:
        params: tree, the best params found, in the types of those given.
        value: the objective there.
        grad: tree like the params, its gradient as :func:`jax.grad` gives it.
        aux: auxiliary output there; None without ``has_aux``.
        num_iters: counter, iterations, also those before a resumed state.
        num_evals: counter, evaluations of the objective with its gradient, likewise.
        status: counter, a :class:`MinimizeStatus`: why it stopped.
        state: a :class:`MinimizeState`, to go on from.
        history: a :class:`History`; None unless asked for.
        gtol: the largest entry of a gradient that counts as small.
        active: tree like the params of int8, -1 for entries at the lower bound, 1 for entries at
            the upper one, else 0; None without bounds.
    """

    __slots__ = ()
    if TYPE_CHECKING:

        @property
        def params(self) -> ParamsType: ...

        @property
        def grad(self) -> ParamsType: ...

    @property
    def success(self) -> Flag:
        """True if the gradient is small or the value has settled; a scalar of type bool."""
        small, settled = (int(status) for status in MinimizeStatus if status.success)
        with jax.transfer_guard_host_to_device("allow"):  # the codes
            return (self.status == small) | (self.status == settled)

    @property
    def message(self) -> str:
        """The reason why it stopped, and the cause; for many runs at once, a line for each reason.

        Only on the host: under :func:`jax.jit` there is only ``status``.
        """
        if np.ndim(self.status) == 0:
            return next(text for _, text in _reasons(self))
        runs = np.size(self.status)
        return "\n".join(f"{which.sum()} of {runs}: {text}" for which, text in _reasons(self))

    @property
    def x(self) -> ParamsType:
        """The params, by SciPy's name."""
        return self.params

    @property
    def fun(self) -> jax.Array:
        """The value, by SciPy's name."""
        return self.value

    @property
    def jac(self) -> ParamsType:
        """The gradient, by SciPy's name."""
        return self.grad

    @property
    def nit(self) -> jax.Array:
        """The number of iterations, by SciPy's name."""
        return self.num_iters

    @property
    def nfev(self) -> jax.Array:
        """The number of evaluations, by SciPy's name."""
        return self.num_evals

    def __repr__(self) -> str:
        for x in (self.value, self.status):
            if isinstance(x, jax.core.Tracer) or not isinstance(x, _ARRAYS):
                fields = f"params={self.params}, value={self.value}, status={self.status}"
                return f"MinimizeResult({fields})"
        summary, leaves = _params(self.params)
        rows = {"value": _span(self.value, ".10g")}
        if self.active is None:
            rows["max |grad|"] = _span(_largest(self.grad, np.shape(self.status)), ".3g")
        else:
            rows["max |proj g|"] = _span(self.state.grad_norm, ".3g")
        rows["iterations"] = _span(self.num_iters, "d")
        rows["evaluations"] = _span(self.num_evals, "d")
        rows["params"] = summary
        if self.active is not None:
            count = sum(np.count_nonzero(_on_host(leaf)) for leaf in jax.tree.leaves(self.active))
            rows["at a bound"] = f"{count:,}"
        rows["success"] = _span(self.success, "")
        lines = [f"  {name:12} {text}" for name, text in rows.items()]
        reasons = (f"  {line}" for line in self.message.splitlines())
        return "\n".join(["MinimizeResult", *lines, *reasons, *leaves])


# The message.


def _reasons(result: MinimizeResult) -> Iterator[tuple[np.ndarray, str]]:
    """Runs, as bools like the status, and why these stopped, for each reason that occurs."""
    codes = _on_host(result.status)
    for code in np.unique(codes):
        status = MinimizeStatus(int(code))
        for which, cause in _causes(status, codes == code, result):
            if np.any(which):
                yield which, f"{status.message} {cause}".rstrip()


def _causes(
    status: MinimizeStatus, which: np.ndarray, result: MinimizeResult
) -> list[tuple[np.ndarray, str]]:
    """The runs that ended with a status, by cause."""
    if status is MinimizeStatus.GRADIENT_SMALL:
        is_zero = (_on_host(result.num_iters) == 0) & (_largest(result.grad, which.shape) == 0)
        cause = "It is zero at the start: does the function depend on the params there?"
        return [(which & ~is_zero, ""), (which & is_zero, cause)]
    if status is MinimizeStatus.SEARCH_FAILED:
        hit_nonfinite = _on_host(result.state.progress.hit_nonfinite)
        cause = (
            "It met points where the value or the gradient is NaN or infinite: does the function "
            "decrease towards the edge of where it is defined?"
        )
        wrong = "Is the gradient that of the value, and continuous?"
        return [(which & ~hit_nonfinite, wrong), (which & hit_nonfinite, cause)]
    cause = ""
    if status is MinimizeStatus.START_NOT_FINITE:
        trees = {"params": result.params, "value": result.value, "grad": result.grad}
        names = [
            checks.path_name(name, path)
            for name, tree in trees.items()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if not np.isfinite(_on_host(leaf)[which]).all()
        ]
        cause = f"Not finite: {', '.join(names)}."
    elif status in (MinimizeStatus.ITERATION_LIMIT, MinimizeStatus.EVALUATION_LIMIT):
        setting = "max_iters" if status is MinimizeStatus.ITERATION_LIMIT else "max_evals"
        cause = (
            "If the value is still decreasing, scale the params (the columns of the data) to "
            f"similar sizes, or raise {setting}. If it is low enough, give a larger gtol."
        )
    return [(which, cause)]


# The table.


def _on_host(x: ArrayLike) -> np.ndarray:
    """The array; of one that lies on several hosts, the entries on this host in one vector."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return np.concatenate([np.ravel(shard.data) for shard in x.addressable_shards])
    return np.asarray(jax.device_get(x))


def _span(x: ArrayLike, spec: str) -> str:
    """A number, or the range of many: those that are finite, and how many are not."""
    x = _on_host(x)
    if x.ndim == 0:
        return format(x.item(), spec)
    if x.dtype == bool:
        return f"{np.count_nonzero(x)} of {x.size}"
    finite = x[np.isfinite(x)]
    texts = []
    if finite.size:
        texts.append(" to ".join(format(end.item(), spec) for end in (finite.min(), finite.max())))
    if finite.size < x.size:
        texts.append(f"{x.size - finite.size} not finite")
    return ", ".join(texts) or "none"


def _largest(tree: Params, shape: tuple[int, ...]) -> np.ndarray:
    """The largest absolute value in a tree for each run of many; NaN if any is NaN.

    ``shape`` is that of the runs; leaves have further axes.
    """
    largest = np.zeros(shape)
    for leaf in map(_on_host, jax.tree.leaves(tree)):
        rows = np.abs(leaf).reshape(*shape, math.prod(leaf.shape[len(shape) :]))
        largest = np.maximum(largest, np.max(rows, axis=-1, initial=0))
    return largest


def _params(params: Params) -> tuple[str, list[str]]:
    """The number and dtypes of params and their range; of few params, a line for each leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(_on_host, params))
    size = sum(leaf.size for _, leaf in leaves)
    dtypes = ", ".join(sorted({str(leaf.dtype) for _, leaf in leaves})) or "none"
    summary = f"{size:,} of {dtypes}"
    if size <= _FEW:
        named = [(f"  {checks.path_name('params', path)} = ", leaf) for path, leaf in leaves]
        return summary, [name + np.array2string(leaf, prefix=name) for name, leaf in named]
    is_complex = any(np.iscomplexobj(leaf) for _, leaf in leaves)
    entries = [np.abs(leaf) if is_complex else leaf for _, leaf in leaves]
    reach = _span(np.concatenate([np.ravel(x).astype(float) for x in entries]), ".5g")
    return f"{summary}, {'absolute values ' if is_complex else ''}from {reach}", []
