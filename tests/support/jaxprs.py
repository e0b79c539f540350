"""What a traced function computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def precisions(function: Callable[..., Any], *arguments: Any) -> set[tuple[str, object]]:
    """Type and precision of every product and convolution of a function."""
    return set(_products(jax.make_jaxpr(function)(*arguments).jaxpr))


def _products(jaxpr: Any) -> list[tuple[str, object]]:
    products = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            products.append((equation.outvars[0].aval.dtype.name, equation.params["precision"]))
        for inner in jax.tree.leaves([*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            products += _products(inner) if hasattr(inner, "eqns") else []
    return products
