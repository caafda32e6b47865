"""The command ``minimize``: minimises a function of the user's."""

import argparse
import csv
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .._core.types import Params
from .._minimize.api import minimize
from .._minimize.plot import new_figure, plot_history
from .._minimize.result import MinimizeResult, MinimizeStatus
from . import NO_SUCCESS, SUCCESS, CommandError

_MAX_ITERS = inspect.signature(minimize).parameters["max_iters"].default
_SETTINGS = (
    ("gtol", float, "stop when no entry of the gradient is larger"),
    ("ftol", float, "stop when the relative decrease of the value is no larger"),
    ("max_iters", int, f"largest number of iterations; default: {_MAX_ITERS}"),
    ("max_evals", int, "largest number of evaluations"),
    ("memory_size", int, "number of pairs to keep; default: 10"),
    ("linesearch", str, "more_thuente (default), zoom or backtracking"),
)
_OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name, _, _ in _SETTINGS},
    "has_aux=True": "--has-aux",
    "bounds[0]": "--lower",
    "bounds[1]": "--upper",
}
"""Arguments of ``minimize``, as its messages name them, and the options that set them."""
_Arrays = Union[np.ndarray, dict[str, np.ndarray]]
"""One array, or several by name."""


def add(commands: Any) -> None:
    """Adds the parser of ``minimize``."""
    parser = commands.add_parser(
        "minimize",
        help="minimise a function of yours with L-BFGS",
        usage="%(prog)s MODULE_OR_FILE:FUNCTION --x0 X [X ...] [options]",
        description="Minimises a function with L-BFGS. The function is in FILE.py or in a module "
        "that can be imported. It is written with jax.numpy, takes one argument, the params, and "
        "returns a number.",
        epilog="Exit status: 0 for success; 1 if minimisation ended without it; 2 for wrong usage "
        "and for errors in your function; 130 if interrupted by Ctrl-C, after writing the files of "
        "the result so far, if there is one.",
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
    parser.add_argument("--has-aux", action="store_true", help="the function returns (value, aux)")
    settings = parser.add_argument_group("settings, as of optax_ls.minimize")
    for name, kind, text in _SETTINGS:
        metavar = kind.__name__.upper()
        settings.add_argument(_OPTIONS[name], type=kind, metavar=metavar, help=text)
    for option in ("lower", "upper"):
        text = f"{option} bounds: one number, numbers for all params, or a file, as for --x0"
        settings.add_argument(f"--{option}", nargs="+", metavar="BOUND", help=text)
    output = parser.add_argument_group("output")
    output.add_argument("--history", metavar="OUT.csv", help="write the history as CSV")
    output.add_argument("--plot", metavar="OUT.png", help="plot the history; needs matplotlib")
    output.add_argument("--save", metavar="OUT.npz", help="write params, value, gradient, status")
    output.add_argument("--json", action="store_true", help="print JSON instead of a table")
    output.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.x64:
        jax.config.update("jax_enable_x64", True)  # before any array
    fun = _load(options.function)
    params = jax.tree.map(jnp.asarray, _read_arrays("x0", options.x0))
    given = vars(options)
    settings = {name: given[name] for name, _, _ in _SETTINGS if given[name] is not None}
    settings["bounds"] = _read_bound("lower", options.lower), _read_bound("upper", options.upper)
    settings["has_aux"] = options.has_aux
    settings["progress"] = sys.stderr.isatty() and not options.quiet
    settings["history"] = bool(options.history or options.plot)
    formats: dict[str, Callable[[MinimizeResult], bytes]] = {"save": _as_npz, "history": _as_csv}
    if options.plot:
        formats["plot"] = _plotter(options.plot)
    paths = {option: given[option] for option in formats if given[option]}
    if len({Path(path).resolve() for path in paths.values()}) < len(paths):
        raise CommandError(f"{' and '.join(f'--{o}' for o in paths)} need files of their own")
    if options.save and Path(options.save).suffix != ".npz":  # --x0 reads no other
        raise CommandError(f"--save: the name must end in .npz, got {options.save!r}")
    for option, path in paths.items():
        _check_output(option, path)
    interrupt = None
    try:
        result = _minimized(options.function, fun, params, settings)
    except KeyboardInterrupt as raised:
        if not hasattr(raised, "result"):
            raise
        interrupt, result = raised, raised.result
    written = []
    try:
        for option, path in paths.items():
            _write(option, path, formats[option](result))
            written.append(f"  wrote {path}")
    finally:  # the result is printed even if a file cannot be written
        if options.json:
            print(json.dumps(_as_json(result), allow_nan=False))
        else:
            table = str(result).replace(result.message, _with_options(result.message))
            print(table, *written, sep="\n")
    if interrupt:
        raise interrupt
    return SUCCESS if result.success else NO_SUCCESS


def _check_output(option: str, path: str) -> None:
    """Refuses, before the run, a file that could not be written after it."""
    target = Path(path).resolve()
    if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
        raise CommandError(f"--{option}: {path} exists and is not a file that may be written")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise CommandError(f"--{option}: the folder of {path} does not exist or is read-only")


def _write(option: str, path: str, contents: bytes) -> None:
    """Writes a draft beside a file, which replaces the file when it is complete."""
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(contents)
        draft.replace(target)
    except OSError as error:
        raise CommandError(f"--{option}: cannot write {path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


# The function to minimise, and the start.


def _load(target: str) -> Callable[[Params], object]:
    """The function that ``MODULE_OR_FILE:FUNCTION`` names."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise CommandError(f"the function must be FILE.py:NAME or MODULE:NAME, got {target!r}")
    is_file = where.endswith(".py")
    if is_file and not Path(where).is_file():
        raise CommandError(f"there is no file {where}")
    if not is_file and not all(part.isidentifier() for part in where.split(".")):
        raise CommandError(f"{where!r} is neither a module nor a file that ends in .py")
    try:
        module = _import(where, is_file)
    except BrokenPipeError:  # not a fault of the module, which prints something
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not is_file and f"{where}.".startswith(f"{missing}."):
            raise CommandError(f"there is no module {missing}") from None
        raise _with_traceback(error, f"{where} cannot be imported") from None
    if not hasattr(module, name):
        raise CommandError(f"{where} has no {name}")
    fun = getattr(module, name)
    if not callable(fun):
        raise CommandError(f"{target} is not a function, but of type {type(fun).__name__}")
    return fun


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


def _minimized(
    target: str, fun: Callable[[Params], object], params: Params, settings: dict[str, Any]
) -> MinimizeResult:
    """The result of ``minimize``; an error that the user's function raised gets its traceback."""
    raised: list[BaseException] = []

    def recorded(params: Params) -> object:
        try:
            return fun(params)
        except Exception as error:
            raised.append(error)
            raise

    try:
        result = minimize(recorded, params, **settings)
        ready: MinimizeResult = jax.block_until_ready(result)
        return ready
    except BrokenPipeError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, (jax.errors.JAXTypeError, jax.errors.JAXIndexError)):
            raise CommandError(f"JAX cannot trace {target}: {_summary(error)}") from None
        if error in raised or not isinstance(error, (TypeError, ValueError)):
            raise _with_traceback(error, f"{target} raised an error") from None
        raise CommandError(f"{target}: {_with_options(_summary(error))}") from None


def _with_options(message: str) -> str:
    """A message of ``minimize`` with the names of the options in place of its arguments."""
    arguments = "|".join(map(re.escape, _OPTIONS))
    return re.sub(rf"\b({arguments})(?!\w)", lambda found: _OPTIONS[found[1]], message)


def _with_traceback(error: BaseException, message: str) -> CommandError:
    """The error to raise, after printing the traceback from where the user's code begins."""
    begin = trace = error.__traceback__
    while trace is not None:
        code, trace = trace.tb_frame.f_code, trace.tb_next
        if code.co_filename == __file__ or code.co_filename.startswith("<frozen importlib"):
            begin = trace
    traceback.print_exception(type(error), error, begin)
    return CommandError(f"{message}: {_summary(error)}")


def _summary(error: BaseException) -> str:
    """The first paragraph of an error in one line, after its type if that says more."""
    line = " ".join(str(error).strip().split("\n\n")[0].split())
    return line if type(error) in (TypeError, ValueError) else f"{type(error).__name__}: {line}"


def _read_bound(option: str, words: Optional[Sequence[str]]) -> Optional[_Arrays]:
    """The bounds that an option stands for: None, a number, an array, or a dict of arrays."""
    if words is None:
        return None
    arrays = _read_arrays(option, words)
    return arrays[0] if isinstance(arrays, np.ndarray) and arrays.shape == (1,) else arrays


def _read_arrays(option: str, words: Sequence[str]) -> _Arrays:
    """The array, or the dict of arrays, that an option stands for."""
    file = re.fullmatch(r"(.+\.np[yz])(?::(.+))?", words[0].strip()) if len(words) == 1 else None
    if file:
        return _read_file(option, file[1], file[2])
    numbers = []
    for word in re.split(r"\s*,\s*|\s+", " ".join(words).strip()):
        try:
            numbers.append(float(word))
        except ValueError:
            what = "numbers, or one .npy or .npz file"
            raise CommandError(f"--{option} must be {what}, got {word!r}") from None
    return np.array(numbers)


def _read_file(option: str, path: str, choice: Optional[str]) -> _Arrays:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except OSError as error:
        raise CommandError(f"--{option}: cannot read {path}: {error.strerror or error}") from None
    except Exception:  # NumPy and zipfile raise errors of many types
        raise CommandError(f"--{option}: {path} is not a file of NumPy's numeric arrays") from None
    if choice is not None:  # an array of that name, or a saved tree of that name
        known = ", ".join(name for name in arrays if name) or "one array without a name"
        branch = f"{choice}/"
        found = [name for name in arrays if f"{name}/".startswith(branch)]
        arrays = {name.removeprefix(branch): arrays[name] for name in found}
        if not arrays:
            raise CommandError(f"--{option}: {path} has no array {choice}; it holds {known}")
    elif {"params", "status"} <= {name.partition("/")[0] for name in arrays}:
        raise CommandError(
            f"--{option}: {path} is a saved result; give its params, --{option} {path}:params"
        )
    if not arrays:
        raise CommandError(f"--{option}: {path} holds no array")
    for name, array in arrays.items():
        if array.dtype.kind not in "iufc":
            where = f"{path}:{name}" if name else path
            raise CommandError(f"--{option}: {where} must hold numbers, it has dtype {array.dtype}")
        arrays[name] = array.astype(_native(array.dtype))
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that JAX has for the numbers of a file; a float for integers."""
    if dtype.kind in "iu" or dtype.char == "g":
        return np.dtype(float)
    return np.dtype(complex) if dtype.char == "G" else dtype.newbyteorder("=")


# The result as files and as JSON.


def _as_npz(result: MinimizeResult) -> bytes:
    """Arrays by name; those of a dict are named ``params/KEY`` and ``grad/KEY``."""
    arrays: dict[str, Any] = {}
    for name in ("params", "grad", "value", "status", "num_iters", "num_evals"):
        field = getattr(result, name)
        is_dict = isinstance(field, dict)
        arrays |= {f"{name}/{key}": x for key, x in field.items()} if is_dict else {name: field}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _as_csv(result: MinimizeResult) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns: Any = result.history
    writer.writerow(("iteration", *columns._fields))
    writer.writerows((k, *row) for k, row in enumerate(zip(*columns.rows(), strict=True)))
    return buffer.getvalue().encode()


def _as_json(result: MinimizeResult) -> dict[str, object]:
    """The result as JSON: numbers that are not finite become null, complex ones become pairs."""
    return {
        "success": bool(result.success),
        "status": MinimizeStatus(int(result.status)).name,
        "message": _with_options(result.message),
        "value": _plain(result.value),
        "num_iters": int(result.num_iters),
        "num_evals": int(result.num_evals),
        "params": jax.tree.map(_plain, result.params),
        "grad": jax.tree.map(_plain, result.grad),
    }


def _plain(x: ArrayLike) -> object:
    x = np.asarray(x)
    if x.ndim:
        return [_plain(row) for row in x]
    if np.iscomplexobj(x):
        return [_plain(x.real), _plain(x.imag)]
    number = float(str(x))  # with the fewest digits that distinguish it from its neighbours
    return number if np.isfinite(number) else None


def _plotter(path: str) -> Callable[[MinimizeResult], bytes]:
    """A function that plots a history in the format of a file name."""
    try:
        figure = new_figure()
    except ImportError as error:
        raise CommandError(f"--plot: {error}") from None
    kind = Path(path).suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise CommandError(f"--plot: the name must end in one of {', '.join(known)}, got {path!r}")

    def plotted(result: MinimizeResult) -> bytes:
        buffer = io.BytesIO()
        plot_history(result, figure).savefig(buffer, format=kind, dpi=150)
        return buffer.getvalue()

    return plotted
