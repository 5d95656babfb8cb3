"""Search spaces as data. A new one is a module and a line in `SPACES`."""

from jaxnas import names
from jaxnas.spaces.base import Costs as Costs
from jaxnas.spaces.base import Space as Space
from jaxnas.spaces.chain import ChainSpace as ChainSpace
from jaxnas.spaces.macro import DIGITS, NAS_BENCH_MACRO
from jaxnas.spaces.mobilenet import MOBILENET, MOBILENET_STRICT
from jaxnas.spaces.nas_bench_201 import NAS_BENCH_201
from jaxnas.spaces.nas_bench_201 import CellSpace as CellSpace
from jaxnas.spaces.pooling import POOLING
from jaxnas.spaces.pooling import PoolingSpace as PoolingSpace

SPACES = {
  space.name: space
  for space in (
    DIGITS,
    POOLING,
    NAS_BENCH_MACRO,
    NAS_BENCH_201,
    MOBILENET,
    MOBILENET_STRICT,
  )
}
NAMES = tuple(SPACES)


def get(name: str) -> Space:
  """Raises ValueError, with the nearest name, where there is no such space."""
  names.check('space', name, NAMES)
  return SPACES[name]
