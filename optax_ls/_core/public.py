"""The public place of classes and functions."""

from typing import Any


def publish(namespace: dict[str, Any]) -> None:
    """Makes a module the home of what it imports from this package, and sets its ``__all__``.

    Error messages and pickles then name this place of a class or function, not its file.
    ``namespace`` is the ``globals()`` of the module.
    """
    inside = namespace["__spec__"].parent + "."
    for name, x in namespace.items():
        if str(getattr(x, "__module__", None)).startswith(inside):
            x.__module__, x.__qualname__ = namespace["__name__"], name
    public = (name for name in namespace if name == "__version__" or not name.startswith("_"))
    namespace["__all__"] = list(public)
