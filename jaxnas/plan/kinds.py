"""Sorts the bytes of a step by the kind of work that moves them.

XLA keeps with each instruction where in the model it comes from, and a fusion
what it is made of. That tells kinds apart well enough to see where bytes go;
what is fused across kinds counts for one of them.
"""

import collections
import re

from jaxnas.plan import hlo
from jaxnas.plan.program import Moved, Program

CONVOLUTIONS = 'convolutions'
PRODUCTS = 'products'
SUMS = 'sums of normalisation'
POINTS = 'normalisation, activation'
SLOTS = 'kept for the backward pass'
COPIES = 'copies, other layouts'
IMAGES = 'images'
REST = 'optimizer, sampler, metrics'

_OF_IMAGES = re.compile(
  r'gather|dynamic_slice|_take|randint|bernoulli|select_n'
)
_SHIFTED = (
  'pad',
  'slice',
  'reshape',
  'broadcast_in_dim',
  'dynamic_update_slice',
)


def by_kind(program: Program) -> dict[str, float]:
  """Returns bytes a step by kind and pass, the largest first."""
  total: dict[str, float] = collections.defaultdict(float)
  for moved in program.moved():
    total[kind(moved)] += moved.times * moved.memory
  return dict(sorted(total.items(), key=lambda each: -each[1]))


def kind(moved: Moved) -> str:
  """Names the kind of an instruction's work, and its pass."""
  name = hlo.op_name(moved.instruction)
  if 'jvp(' not in name:
    return IMAGES if _OF_IMAGES.search(name) else REST
  found = _of_network(moved, name)
  return f'{found}, {"backward" if "transpose(" in name else "forward"}'


def _of_network(moved: Moved, name: str) -> str:
  one = moved.instruction
  ops = {inner.op for inner in moved.inner} | {one.op}
  called = ' '.join(re.findall(r'custom_call_target="([^"]*)"', one.attributes))
  last = name.rpartition('/')[2]
  if 'triton' in called:
    # Kernels of ours: they normalise, too, and write the map of a convolution.
    return CONVOLUTIONS
  if 'conv' in called.lower() or 'convolution' in ops:
    # On a TPU products are convolutions, too; their name says which.
    return PRODUCTS if 'dot_general' in last else CONVOLUTIONS
  if 'gemm' in called.lower() or 'cublas' in called or 'dot' in ops:
    return PRODUCTS
  if ops & {'copy', 'transpose'} and ops <= {
    'copy', 'transpose', 'fusion', 'parameter', 'bitcast', 'copy-start',
  }:  # fmt: skip
    return COPIES
  if 'norm' not in name and ('pad' in ops or last in _SHIFTED):
    return SLOTS
  return SUMS if 'reduce' in ops else POINTS
