"""Search spaces as data. A new one is a module and a line in `SPACES`."""

import difflib

from jaxnas.spaces.base import Costs as Costs
from jaxnas.spaces.base import Space as Space
from jaxnas.spaces.macro import DIGITS, NAS_BENCH_MACRO
from jaxnas.spaces.macro import MacroSpace as MacroSpace
from jaxnas.spaces.pooling import POOLING
from jaxnas.spaces.pooling import PoolingSpace as PoolingSpace

SPACES = {space.name: space for space in (DIGITS, POOLING, NAS_BENCH_MACRO)}
NAMES = tuple(SPACES)


def get(name: str) -> Space:
  """Raises ValueError, with the nearest name, where there is no such space."""
  if name not in SPACES:
    # 'NAS-Bench-Macro' is how papers write it.
    near = difflib.get_close_matches(name.lower(), NAMES, 1)
    hint = f' Did you mean {near[0]}?' if near else ''
    raise ValueError(f'space {name!r} is none of {", ".join(NAMES)}.{hint}')
  return SPACES[name]
