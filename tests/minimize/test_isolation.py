"""The isolation of the objective in a branch changes only rounding, and can be switched off."""

import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls._core import isolation

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
@pytest.mark.parametrize("x64", [True], indirect=True)
def test_result_without_isolation_is_the_same(linesearch, x64, monkeypatch):
    def run():
        fun = lambda x: rosenbrock(x)  # noqa: E731  # a function of its own has its own program
        return optax_ls.minimize(fun, jnp.array([-1.2, 1.0, 0.5]), linesearch=linesearch)

    isolated = run()
    monkeypatch.setattr(isolation, "ENABLED", False)
    plain = run()
    assert plain.status == isolated.status
    np.testing.assert_allclose(plain.params, isolated.params, atol=1e-8)
