"""Search spaces as data. A new one is a module here and a line in `SPACES`."""

from jaxnas.runtime import suggestions
from jaxnas.spaces.base import Costs as Costs
from jaxnas.spaces.base import Space as Space
from jaxnas.spaces.chain import ChainSpace as ChainSpace
from jaxnas.spaces.macro import DIGITS, NAS_BENCH_MACRO
from jaxnas.spaces.mobilenet import MOBILENET, MOBILENET_STRICT
from jaxnas.spaces.nas_bench_201 import NAS_BENCH_201
from jaxnas.spaces.nas_bench_201 import CellSpace as CellSpace
from jaxnas.spaces.pooling import POOLING
from jaxnas.spaces.pooling import PoolingSpace as PoolingSpace

SPACES: dict[str, Space] = {
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


def add(space: Space) -> None:
  """Adds a space, in place of one with its name."""
  SPACES[space.name] = space


def get(name: str) -> Space:
  """Returns a space by name; an unknown one raises ValueError with a hint."""
  suggestions.check('space', name, SPACES)
  return SPACES[name]
