"""The command that minimises a function of the user's."""

import argparse
import contextlib
import csv
import importlib
import importlib.util
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from .._minimize import plot as _plot
from .._minimize.api import minimize
from .._minimize.result import MinimizeResult, MinimizeStatus
from .common import NO_SUCCESS, SUCCESS, Refusal, brief, reserved


def add(commands: Any) -> None:
    """Adds the parser of ``minimize``."""
    parser = commands.add_parser(
        "minimize",
        help="minimise a function of yours with L-BFGS",
        usage="%(prog)s MODULE_OR_FILE:FUNCTION --x0 X [X ...] [options]",
        description="Minimises a function of one argument, the params, with L-BFGS. It is found in "
        "FILE.py or in a module that can be imported, written with jax.numpy, and returns a "
        "number.",
        epilog="Exit status: 0 for success, 1 if minimisation ended without it, 2 for wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("function", metavar="MODULE_OR_FILE:FUNCTION", help="what to minimise")
    parser.add_argument(
        "--x0",
        nargs="+",
        required=True,
        metavar="X",
        help="where to start: numbers, a .npy file, or a .npz file (several arrays become a dict, "
        "FILE.npz:NAME is one of them)",
    )
    parser.add_argument("--x64", action="store_true", help="compute with 64 bits instead of 32")
    parser.add_argument(
        "--has-aux", action="store_true", help="the function returns (value, auxiliary output)"
    )
    settings = parser.add_argument_group("settings, as of optax_ls.minimize")
    for name, kind, text in (
        ("gtol", float, "stop when no entry of the gradient is larger"),
        ("ftol", float, "stop when the value falls by no more, relatively"),
        ("max-iters", int, "largest number of iterations; 1000 if not given"),
        ("max-evals", int, "largest number of evaluations"),
        ("memory-size", int, "pairs to keep; 10 if not given"),
        ("linesearch", str, "more_thuente (if not given), zoom or backtracking"),
    ):
        settings.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(), help=text)
    output = parser.add_argument_group("output")
    output.add_argument("--history", metavar="OUT.csv", help="write the course as CSV")
    output.add_argument("--plot", metavar="OUT.png", help="draw it; needs matplotlib")
    output.add_argument("--save", metavar="OUT.npz", help="write params, value, gradient, status")
    output.add_argument("--json", action="store_true", help="print JSON instead of a table")
    output.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Minimises, writes, prints; returns the exit status."""
    if options.x64:
        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]  # before any array
    fun = _load(options.function)
    params = jax.tree.map(jnp.asarray, _read_start(options.x0))
    names = ("gtol", "ftol", "max_iters", "max_evals", "memory_size", "linesearch")
    settings = {name: getattr(options, name) for name in names}
    settings = {name: setting for name, setting in settings.items() if setting is not None}
    figure = _empty_figure(options.plot) if options.plot else None
    with reserved(history=options.history, plot=options.plot, save=options.save) as write:
        with _users_code(options.function) as guard:
            result = minimize(
                guard(fun),
                params,
                has_aux=options.has_aux,
                progress=sys.stderr.isatty() and not options.quiet,
                history=bool(options.history or options.plot),
                **settings,
            )
            result = jax.block_until_ready(result)  # type: ignore[no-untyped-call]
        written = []
        try:
            if options.save:
                written.append(write("save", _as_npz(result)))
            if options.history:
                written.append(write("history", _as_csv(result)))
            if options.plot:
                written.append(write("plot", _as_picture(result, figure, options.plot)))
        finally:  # the result is told in any case
            if options.json:
                print(json.dumps(_as_json(result), allow_nan=False))
            else:
                print(result, *_shown(result.params), *written, sep="\n")
    return SUCCESS if result.success else NO_SUCCESS


# The function to minimise.


def _load(target: str) -> Callable[[Any], Any]:
    """The function that ``MODULE_OR_FILE:FUNCTION`` names."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise Refusal(f"the function must be given as FILE.py:NAME or MODULE:NAME, got {target!r}")
    is_file = where.endswith(".py") or "/" in where or os.sep in where
    if is_file and not where.endswith(".py"):
        raise Refusal(f"the file of the function must end in .py, got {where!r}")
    if is_file and not Path(where).is_file():
        raise Refusal(f"there is no file {where}")
    if not is_file and not all(part.isidentifier() for part in where.split(".")):
        raise Refusal(f"{where!r} is neither a module nor a file that ends in .py")
    try:
        module = _import(where, is_file)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not is_file and f"{where}.".startswith(f"{missing}."):
            raise Refusal(f"there is no module {missing}") from None
        _print_traceback(error)
        raise Refusal(f"{where} cannot be imported: {brief(error)}") from None
    if not hasattr(module, name):
        raise Refusal(f"{where} has no {name}")
    fun = getattr(module, name)
    if not callable(fun):
        raise Refusal(f"{target} is no function, but of type {type(fun).__name__}")
    return fun  # type: ignore[no-any-return]


def _import(where: str, is_file: bool) -> ModuleType:
    """Imports what the user named: the only import in the package whose name is not written in it.

    A file can import its neighbours, as if it were run by ``python FILE``.
    """
    if not is_file:
        return importlib.import_module(where)
    path = Path(where).resolve()
    sys.path.insert(0, str(path.parent))
    spec: Any = importlib.util.spec_from_file_location(f"<{path.name}>", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _users_code(target: str) -> Iterator[Callable[[Any], Any]]:
    """Tells errors raised in the user's function, shown with a traceback, from those about it.

    It yields a function that puts the guard around another one.
    """
    raised: list[Exception] = []

    def guard(fun: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(params: Any) -> Any:
            try:
                return fun(params)
            except Exception as error:
                raised.append(error)
                raise

        return guarded

    try:
        yield guard
    except Exception as error:
        if isinstance(error, (jax.errors.JAXTypeError, jax.errors.JAXIndexError)):
            raise Refusal(f"JAX cannot trace {target}: {brief(error)}") from None
        if error in raised or not isinstance(error, (TypeError, ValueError)):
            _print_traceback(error)
            raise Refusal(f"{target} raised an error: {brief(error)}") from None
        raise Refusal(f"{target}: {brief(error)}") from None


def _print_traceback(error: Exception) -> None:
    """Prints the traceback from where the user's code begins."""
    begin = trace = error.__traceback__
    while trace is not None:
        code, trace = trace.tb_frame.f_code, trace.tb_next
        if code.co_filename == __file__ or code.co_filename.startswith("<frozen importlib"):
            begin = trace
    traceback.print_exception(type(error), error, begin)


# Where to start.


def _read_start(words: Sequence[str]) -> Any:
    """The array, or the dict of arrays, that ``--x0`` stands for."""
    file = re.fullmatch(r"(.+\.np[yz])(?::(.+))?", words[0].strip()) if len(words) == 1 else None
    if file:
        return _read_file(file[1], file[2])
    numbers = []
    for word in re.split(r"\s*,\s*|\s+", " ".join(words).strip()):
        try:
            numbers.append(float(word))
        except ValueError:
            raise Refusal(
                f"--x0 must be numbers, or one file that ends in .npy or .npz, got {word!r}"
            ) from None
    return np.array(numbers)


def _read_file(path: str, choice: Optional[str]) -> Any:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except OSError as error:
        raise Refusal(f"--x0: cannot read {path}: {error.strerror or error}") from None
    except Exception:  # NumPy and zipfile have many words for it
        raise Refusal(f"--x0: {path} is no file of numeric arrays as NumPy writes it") from None
    if choice is not None:
        arrays = _chosen(arrays, choice, path)
    elif {"params", "status"} <= {name.partition("/")[0] for name in arrays}:
        raise Refusal(f"--x0: {path} is a saved result; go on from it with --x0 {path}:params")
    if not arrays:
        raise Refusal(f"--x0: {path} holds no array")
    for name, array in arrays.items():
        arrays[name] = _as_floats(array, f"{path}:{name}" if name else path)
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _chosen(arrays: dict[str, Any], choice: str, path: str) -> dict[str, Any]:
    """The array of that name, or those of a saved tree of that name."""
    if choice in arrays:
        return {choice: arrays[choice]}
    branch = {
        name.removeprefix(f"{choice}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{choice}/")
    }
    if not branch:
        known = ", ".join(name for name in arrays if name) or "one array without a name"
        raise Refusal(f"--x0: {path} has no array {choice}; it holds {known}")
    return branch


def _as_floats(array: Any, name: str) -> Any:
    if array.dtype.kind in "iu":
        return array.astype(float)
    if array.dtype.kind not in "fc":
        raise Refusal(f"--x0: {name} must hold numbers, it has dtype {array.dtype}")
    return array


# Results, for people and for files.


def _shown(params: Any) -> Iterator[str]:
    """A line for each leaf, long ones shortened."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = f"  params{jax.tree_util.keystr(path)} = "
        yield name + np.array2string(np.asarray(leaf), threshold=20, prefix=name)


def _named(name: str, tree: Any) -> dict[str, Any]:
    """The arrays of a tree that is an array or a flat dict: ``name`` or ``name/key``."""
    if not isinstance(tree, dict):
        return {name: np.asarray(tree)}
    return {f"{name}/{key}": np.asarray(leaf) for key, leaf in tree.items()}


def _as_npz(result: MinimizeResult) -> bytes:
    numbers = ("value", "status", "num_iters", "num_evals")
    arrays: dict[str, Any] = {name: np.asarray(getattr(result, name)) for name in numbers}
    buffer = io.BytesIO()
    np.savez(buffer, **_named("params", result.params), **_named("grad", result.grad), **arrays)
    return buffer.getvalue()


def _as_csv(result: MinimizeResult) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns: Any = result.history
    writer.writerow(("iteration", *columns._fields))
    writer.writerows((k, *row) for k, row in enumerate(zip(*columns.rows(), strict=True)))
    return buffer.getvalue().encode()


def _as_json(result: MinimizeResult) -> dict[str, Any]:
    """What JSON can hold: numbers that are not finite are null, complex ones are pairs."""
    return {
        "success": bool(result.success),
        "status": MinimizeStatus(int(result.status)).name,
        "message": result.message,
        "value": _plain(result.value),
        "num_iters": int(result.num_iters),
        "num_evals": int(result.num_evals),
        "params": jax.tree.map(_plain, result.params),
        "grad": jax.tree.map(_plain, result.grad),
    }


def _plain(x: Any) -> Any:
    x = np.asarray(x)
    if x.ndim:
        return [_plain(row) for row in x]
    if np.iscomplexobj(x):
        return [_plain(x.real), _plain(x.imag)]
    number = float(str(x))  # with the fewest digits that tell it from its neighbours
    return number if np.isfinite(number) else None


def _empty_figure(path: str) -> Any:
    """A figure that can be written to a file of that name."""
    try:
        figure = _plot.new_figure()
    except ImportError as error:
        raise Refusal(f"--plot: {error}") from None
    known = figure.canvas.get_supported_filetypes()
    if _ending(path) not in known:
        raise Refusal(f"--plot: the name must end in one of {', '.join(known)}, got {path!r}")
    return figure


def _ending(path: str) -> str:
    return Path(path).suffix[1:].lower()


def _as_picture(result: MinimizeResult, figure: Any, path: str) -> bytes:
    buffer = io.BytesIO()
    _plot.plot_history(result, figure).savefig(buffer, format=_ending(path), dpi=150)
    return buffer.getvalue()
