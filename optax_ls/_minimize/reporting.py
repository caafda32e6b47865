"""Reports to the host during a minimisation: the user's callback and the progress bar."""

import dataclasses
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

_SECONDS_BETWEEN_LINES = 0.5
# Under vmap the callback is called for one element at a time. Older versions of JAX do that without
# being asked.
_KNOWS_VMAP_METHOD = "vmap_method" in inspect.signature(jax.pure_callback).parameters
_ONE_BY_ONE: dict[str, Any] = {"vmap_method": "sequential"} if _KNOWS_VMAP_METHOD else {}


class IterationInfo(NamedTuple):
    """The argument of a callback of :func:`minimize`: the start, or the state after an iteration.

    Attributes:
        num_iters: int, iterations so far; 0 at the start.
        value: float, the objective.
        grad_norm: float, the largest absolute value in the gradient.
        step: float, the step along the direction; 0 at the start.
        num_evals: int, evaluations of the objective so far.
        params: tree of NumPy arrays, the params.
    """

    num_iters: int
    value: float
    grad_norm: float
    step: float
    num_evals: int
    params: Any


@dataclasses.dataclass(frozen=True)
class Reporter:
    """Part of a compiled program: two that are equal may share one.

    Attributes:
        callback: the user's, or None.
        progress: whether to show a bar.
        total: iterations allowed; None if not known.
    """

    callback: Optional[Callable[[IterationInfo], Any]]
    progress: bool
    total: Optional[int]

    def bind(self) -> Callable[..., jax.Array]:
        """The function that the loop calls with its state, and with what has happened.

        It returns whether to stop.
        """
        bar = _Bar(self.total) if self.progress else None

        def on_host(moved: Any, ended: Any, params: Any, *numbers: Any) -> Any:
            if not (moved or ended):
                return np.asarray(False)
            num_iters, value, grad_norm, step, num_evals = (x.item() for x in numbers)
            info = IterationInfo(num_iters, value, grad_norm, step, num_evals, params)
            if bar is not None:
                bar.show(info, bool(ended))
            if self.callback is None or not moved:
                return np.asarray(False)
            try:
                stop = self.callback(info) is True
            except BaseException:
                if bar is not None:
                    bar.close()
                raise
            if stop and bar is not None and not ended:
                bar.show(info, True)
            return np.asarray(stop)

        def report(state: Any, moved: jax.Array, ended: jax.Array) -> jax.Array:
            numbers = state.num_iters, state.value, state.grad_norm, state.step, state.num_evals
            params = None if self.callback is None else state.memory.params
            wanted = jax.eval_shape(lambda: jnp.zeros((), bool))
            # Not io_callback, which a loop under vmap does not admit. This one is called each time
            # for all that: the loop cannot go on without its answer.
            stop: jax.Array = jax.pure_callback(
                lambda *told: on_host(*jax.tree.map(np.asarray, told)),
                wanted,
                moved,
                ended,
                params,
                *numbers,
                **_ONE_BY_ONE,
            )
            return stop

        return report


class _Bar:
    """A tqdm bar, or without tqdm lines on stderr. Runs under vmap share one."""

    def __init__(self, total: Optional[int]) -> None:
        self.total = total
        self.runs = 0
        self.bar: Any = None
        self.lines = False
        self.last_line = -np.inf

    def show(self, info: IterationInfo, ended: bool) -> None:
        if info.num_evals == 1:
            self.runs += 1
        if self.bar is None and not self.lines:
            self.bar = _open(self.total)
            self.lines = self.bar is None
        if self.bar is not None:
            self.bar.n = max(self.bar.n, info.num_iters) if self.runs > 1 else info.num_iters
            self.bar.set_postfix_str(_summary(info))
        elif ended or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            total = "" if self.total is None else f"/{self.total}"
            print(f"minimize: {info.num_iters}{total} {_summary(info)}", file=sys.stderr)
        if ended:
            self.runs -= 1
            if self.runs <= 0:
                self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.runs, self.bar, self.lines, self.last_line = 0, None, False, -np.inf


def _summary(info: IterationInfo) -> str:
    return f"value {info.value:.6g}, max |grad| {info.grad_norm:.2e}"


def _open(total: Optional[int]) -> Any:
    """A bar, or None where tqdm is not installed."""
    try:
        import tqdm
    except ImportError:
        return None
    return tqdm.tqdm(total=total, desc="minimize", unit="it")
