"""The version, the name and the requirements of the package."""

__version__ = "0.2.0"

PROJECT = "optax_ls"
LICENCE = "Apache-2.0"
REQUIRES_PYTHON = ">=3.10"
REQUIRES = {"jax": ">=0.4.30", "chex": ">=0.1.86", "numpy": ">=1.24"}
