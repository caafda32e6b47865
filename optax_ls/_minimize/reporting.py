"""Reports to the host during a minimisation: the user's callback and the progress bar."""

import dataclasses
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional, Union

import chex
import jax
import jax.numpy as jnp
import numpy as np

from .._core.types import Flag, Params
from .result import MinimizeResult
from .state import MinimizeState

_SECONDS_BETWEEN_LINES = 0.5
# Under vmap the callback is called for one element at a time, as older versions of JAX always do.
_KNOWS_VMAP_METHOD = "vmap_method" in inspect.signature(jax.pure_callback).parameters
_ONE_BY_ONE: dict[str, Any] = {"vmap_method": "sequential"} if _KNOWS_VMAP_METHOD else {}


class IterationInfo(NamedTuple):
    """The argument of a callback of :func:`minimize`: the start, or the state after an iteration.

    Attributes:
        num_iters: int, iterations so far; 0 at the start.
        value: float, the objective.
        grad_norm: float, the largest absolute value in the gradient; with bounds, in the projected
            gradient.
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


@dataclasses.dataclass(eq=False)
class Reporter:
    """Shows the progress of a run, or of several under vmap, and asks the user's callback.

    Reporters are equal for the same callback, hashable or not.

    Attributes:
        callback: the user's, or None.
        progress: whether to show a tqdm bar, or lines on stderr without tqdm.
        total: iterations allowed; None if not known.
        runs: how many runs share the bar.
        bar: the bar, while there is one.
        last_line: the time of the last line; minus infinity before the first one.
    """

    callback: Optional[Callable[[IterationInfo], object]]
    progress: bool
    total: Optional[int]
    runs: int = 0
    bar: Any = None
    last_line: float = -np.inf

    @property
    def _key(self) -> tuple[int, bool, Optional[int]]:
        return id(self.callback), self.progress, self.total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reporter) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def observer(self) -> "Reporter":
        """An equal one that has shown nothing yet, for a run of its own."""
        return Reporter(self.callback, self.progress, self.total)

    def in_program(self) -> Callable[..., Flag]:
        """The function that a loop inside a trace calls with its state and with what has happened.

        It returns whether to stop.
        """
        observer = self.observer()

        def report(state: MinimizeState, moved: Flag, ended: Flag) -> Flag:
            numbers = state.num_iters, state.value, state.grad_norm, state.step, state.num_evals
            params = None if self.callback is None else state.memory.params
            # A loop under vmap does not admit io_callback. This callback is not omitted either,
            # because the loop needs its answer.
            stop: Flag = jax.pure_callback(
                lambda *values: np.asarray(observer.observe(*jax.tree.map(np.asarray, values))),
                jax.eval_shape(lambda: jnp.zeros((), bool)),
                moved,
                ended,
                params,
                *numbers,
                **_ONE_BY_ONE,
            )
            return stop

        return report

    def observe(
        self,
        moved: chex.Numeric,
        ended: chex.Numeric,
        params: Optional[Params],
        *numbers: Union[jax.Array, np.ndarray],
    ) -> bool:
        """Takes the state after an evaluation, or after several; returns whether to stop.

        Args:
            moved: whether the iterate moved.
            ended: whether the run has ended.
            params: tree of NumPy arrays; None without a callback.
            numbers: the numbers of :class:`IterationInfo`, as scalars of NumPy or JAX.
        """
        num_iters, value, grad_norm, step, num_evals = (x.item() for x in numbers)
        info = IterationInfo(num_iters, value, grad_norm, step, num_evals, params)
        if moved or ended:
            self._show(info, bool(ended))
        if self.callback is None or not moved:
            return False
        try:
            answer = self.callback(info)
            if isinstance(answer, (np.generic, np.ndarray, jax.Array)) and answer.shape == ():
                answer = answer.item()
            stop = answer is True
        except StopIteration:
            stop = True
        except BaseException:
            self.close()
            raise
        if stop and not ended:
            self._show(info, True)
        return stop

    def observe_result(self, result: MinimizeResult, moved: bool, ended: bool) -> bool:
        """The same for the result of a slice."""
        params = None
        if self.callback is not None and moved:
            params = jax.tree.map(np.asarray, result.params)
        numbers = result.value, result.state.grad_norm, result.state.step
        return self.observe(moved, ended, params, result.num_iters, *numbers, result.num_evals)

    def _show(self, info: IterationInfo, ended: bool) -> None:
        if not self.progress:
            return
        self.runs += info.num_evals == 1
        is_first = self.bar is None and self.last_line == -np.inf
        if is_first and (tqdm := _tqdm()):
            self.bar = tqdm.tqdm(total=self.total, desc="minimize", unit="it")
        text = f"value {info.value:.6g}, max |grad| {info.grad_norm:.2e}"
        if self.bar is not None:
            self.bar.n = max(self.bar.n, info.num_iters) if self.runs > 1 else info.num_iters
            self.bar.set_postfix_str(text)
        elif ended or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            total = "" if self.total is None else f"/{self.total}"
            print(f"minimize: {info.num_iters}{total} {text}", file=sys.stderr)
        self.runs -= ended
        if ended and self.runs <= 0:
            self.close()

    def close(self) -> None:
        """Ends what is shown, also of a run that broke off."""
        if self.bar is not None:
            self.bar.close()
        self.runs, self.bar, self.last_line = 0, None, -np.inf


def _tqdm() -> Any:
    """The module, or None where it is not installed."""
    try:
        import tqdm
    except ImportError:
        return None
    return tqdm
