"""Depth-first walk over the prefix tree of a set of architectures.

Architectures of a sequential space that start alike compute alike: the walk
visits them in lexicographic order and computes only the positions in which
each differs from the one before. On all 6,561 architectures of
NAS-Bench-Macro that saves 3.73 times the multiply-adds of a forward pass.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int


def walk(
  archs_AxE: Int[np.ndarray, 'A E'],
  root: Any,
  step: Callable[[int, Any, int], Any],
) -> Iterator[tuple[int, Any]]:
  """Yields (index into `archs_AxE`, value after the last position).

  Args:
    archs_AxE: any set of architectures, in any order.
    root: the value before the first position.
    step: (position, value before it, op) -> value after it.

  At most E + 1 values are alive at a time.
  """
  values, previous_E = [root], None
  for index in np.lexsort(archs_AxE.T[::-1]):
    arch_E = archs_AxE[index]
    shared = 0
    if previous_E is not None:
      same_E = arch_E == previous_E
      shared = len(arch_E) if same_E.all() else int(same_E.argmin())
    del values[shared + 1 :]
    for position in range(shared, len(arch_E)):
      values.append(step(position, values[-1], int(arch_E[position])))
    previous_E = arch_E
    yield int(index), values[-1]


@functools.cache
def trunk(net: Any) -> Callable[..., Iterator[tuple[int, Any]]]:
  """(variables, archs_AxE, batches) -> what the head receives, by architecture.

  The function returned yields (index, features) as `walk` does and compiles
  one program a position, once: density and ranking of equal nets share it.

  Args:
    net: a supernet with the methods stem, position and head. `batches` is
      any pytree of image batches, and features have its structure.
  """

  @jax.jit
  def stem(variables, batches):
    return jax.tree.map(
      lambda x: net.apply(variables, x, method='stem'), batches
    )

  @functools.partial(jax.jit, static_argnums=0)
  def position(e, variables, batches, op):
    return jax.tree.map(
      lambda x: net.apply(variables, e, x, op, method='position'), batches
    )

  def visit(variables, archs_AxE, batches):
    return walk(
      archs_AxE,
      stem(variables, batches),
      lambda e, x, op: position(e, variables, x, np.int32(op)),
    )

  return visit
