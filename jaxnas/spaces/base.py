"""The contract of a search space: architectures as rows of op indices."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# Spaces up to this size are held as a list of all their architectures.
LARGEST_ENUMERATION = 10**6

# Levels of complexity by multiply-adds.
LEVELS = 5


class Costs(NamedTuple):
  """Parameters of stand-alone networks, and multiply-adds for one image."""

  params_A: Int[np.ndarray, ' A']
  macs_A: Int[np.ndarray, ' A']


@dataclasses.dataclass(frozen=True)
class Space:
  """A product of choices: one op at each position.

  An arch is an int32 vector of E op indices, archs a matrix of A rows. This
  class holds for full products; a space with other rules overrides `size`,
  `enumerate`, `index`, `random`, `parse`, `format`, `allowed` and `_forbidden`.
  The text of an arch has one digit for each position where no position has more
  than ten ops; else it lists the names of its ops with commas between them.
  """

  name: str
  ops: tuple[tuple[str, ...], ...]
  """Names of the candidate ops at each position."""
  image_shape: tuple[int, int, int]
  """Height, width and channels of an image."""
  classes: int
  any_images: bool = dataclasses.field(default=False, kw_only=True)
  """True where its networks take images of any size and number of classes."""

  @property
  def positions(self) -> int:
    return len(self.ops)

  @property
  def counts(self) -> tuple[int, ...]:
    """Number of candidate ops at each position."""
    return tuple(map(len, self.ops))

  @property
  def size(self) -> int:
    return int(np.prod(self.counts, dtype=object))

  @property
  def enumerable(self) -> bool:
    """True where all architectures fit in memory as a list."""
    return self.size <= LARGEST_ENUMERATION

  def parse(self, text: str) -> Int[np.ndarray, ' E']:
    """Reads what `format` writes. Raises ValueError naming what is wrong."""
    if self._digits:
      # int() takes other scripts' digits too, and isdigit() the '²'.
      if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(
          f'{text!r} is not all digits; {self.name} has {self._rule}.'
        )
      words, unit = list(text), 'digits'
    else:
      words, unit = text.split(','), 'ops'
    if len(words) != self.positions:
      raise ValueError(
        f'{text!r} has {len(words)} {unit}; {self.name} has {self._rule}.'
      )
    arch_E = np.zeros(self.positions, np.int32)
    for e, (word, names) in enumerate(zip(words, self.ops, strict=True)):
      if not self._digits and word not in names:
        raise ValueError(
          f'op {word!r} at position {e}; {self.name} allows '
          f'{", ".join(names)} there.'
        )
      arch_E[e] = int(word) if self._digits else names.index(word)
    self.validate(arch_E[None])
    return arch_E

  def format(self, arch_E: Int[np.ndarray, ' E']) -> str:
    if self._digits:
      return ''.join(map(str, arch_E))
    return ','.join(
      names[op] for names, op in zip(self.ops, arch_E, strict=True)
    )

  def enumerate(self) -> Int[np.ndarray, 'A E']:
    """All architectures, in lexicographic order.

    Raises ValueError where there are too many to list.
    """
    self._check_enumerable()
    return np.indices(self.counts, np.int32).reshape(self.positions, -1).T

  def index(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    """Row of each arch in `enumerate`."""
    self._check_enumerable()
    self.validate(archs_AxE)
    rows_A = np.ravel_multi_index(tuple(archs_AxE.T), self.counts)
    return np.asarray(rows_A)

  def looked_up(
    self,
    archs_KxE: Int[np.ndarray, 'K E'],
    value_K: Shaped[np.ndarray, ' K'],
    archs_AxE: Int[np.ndarray, 'A E'],
  ) -> Float[np.ndarray, ' A']:
    """Returns values of architectures; NaN of those that none is given for.

    Args:
      archs_KxE: the architectures that values are given for.
      value_K: the values.
      archs_AxE: the architectures that values are wanted of.

    Raises TypeError for a space that is too large to list.
    """
    value_S = np.full(self.size, np.nan)
    value_S[self.index(archs_KxE)] = value_K
    return value_S[self.index(archs_AxE)]

  def random(
    self, rng: np.random.Generator, count: int
  ) -> Int[np.ndarray, 'A E']:
    """Independent uniform draws."""
    return rng.integers(self.counts, size=(count, self.positions)).astype(
      np.int32
    )

  def subset(
    self, rng: np.random.Generator, count: int
  ) -> Int[np.ndarray, 'A E']:
    """Draws `count` different architectures, in the order of the enumeration.

    In a space too large to list the draws are independent and may repeat.
    """
    if not self.enumerable:
      return self.random(rng, count)
    archs_AxE = self.enumerate()
    return archs_AxE[np.sort(rng.choice(len(archs_AxE), count, replace=False))]

  def canonical(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, 'A E']:
    """Maps archs that are the same stand-alone network to one of them."""
    return archs_AxE

  def codes(self, archs_AxE: Any) -> Any:
    """Returns numbers in a row, of which alike networks share many.

    From them what was measured of some is predicted for others. Where a space
    is too large to list the arithmetic is jitted.
    """
    return archs_AxE

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    """Costs of convolutions, linear layers and affine batch normalisation.

    Multiply-adds leave normalisation out, as the benchmarks do.
    """
    raise TypeError(f'{type(self).__name__} does not define its costs.')

  def largest(self) -> Int[np.ndarray, ' E']:
    """Returns the architecture with most multiply-adds.

    Of several alike it is one with most parameters, and then the first. A space
    too large to list is climbed position by position, which is exact where
    costs are sums over positions.
    """
    if self.enumerable:
      return self._costliest(self.enumerate())
    arch_E = np.zeros(self.positions, np.int32)
    for e, count in enumerate(self.counts):
      archs_OxE = np.tile(arch_E, (count, 1))
      archs_OxE[:, e] = np.arange(count)
      arch_E = self._costliest(archs_OxE)
    return arch_E

  def _costliest(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, ' E']:
    costs = self.costs(archs_AxE)
    return archs_AxE[np.lexsort((-costs.params_A, -costs.macs_A))[0]]

  def shared_macs(self, archs_AxE: Int[np.ndarray, 'A E']) -> int:
    """Multiply-adds of ranking all of these networks on one image.

    A start that a ranking computes once for several networks counts once.
    """
    return int(self.costs(archs_AxE).macs_A.sum())

  def baselines(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> dict[str, Int[np.ndarray, ' A']]:
    """Scores that rank architectures without any training."""
    costs = self.costs(archs_AxE)
    return {
      'params': costs.params_A,
      'macs': costs.macs_A,
      'layers': self.depth(archs_AxE),
    }

  def depth(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    """Number of layers that each arch chooses to have."""
    return (archs_AxE != 0).sum(axis=1)

  def one_hot(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Float[np.ndarray, 'A O']:
    """Returns a column for each op of each position: 1 where it is chosen."""
    columns = [
      archs_AxE[:, [e]] == np.arange(count)
      for e, count in enumerate(self.counts)
    ]
    return np.concatenate(columns, axis=1).astype(float)

  def complexity(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, ' A']:
    """Level of complexity, from 0 for the simplest; -1 for one without.

    Sampler `balanced` draws every level as often. Here the levels are fifths of
    the space by multiply-adds; a space that knows better overrides this.

    Raises ValueError where the space has no levels.
    """
    macs_A = self.costs(self.enumerate()).macs_A
    edges = np.quantile(macs_A, np.linspace(0, 1, LEVELS + 1)[1:-1])
    return np.searchsorted(edges, self.costs(archs_AxE).macs_A, side='left')

  def on_images(
    self, image_shape: tuple[int, int, int], classes: int
  ) -> 'Space':
    """Returns the space for images of this shape and number of classes.

    Raises ValueError where its networks take other images only.
    """
    if self.any_images:
      return dataclasses.replace(self, image_shape=image_shape, classes=classes)
    if image_shape != self.image_shape:
      raise ValueError(
        f'space {self.name} takes images of {_size(self.image_shape)}; these '
        f'are {_size(image_shape)}.'
      )
    if classes != self.classes:
      raise ValueError(
        f'space {self.name} has {self.classes} classes; these images have '
        f'{classes}.'
      )
    return self

  def validate(self, archs_AxE: Shaped[np.ndarray, '...']) -> None:
    """Raises ValueError naming a bad value, its place and what is allowed."""
    archs_AxE = np.asarray(archs_AxE)
    if not np.issubdtype(archs_AxE.dtype, np.integer):
      raise ValueError(
        f'archs of dtype {archs_AxE.dtype}; {self.name} needs integers.'
      )
    if archs_AxE.ndim != 2 or archs_AxE.shape[1] != self.positions:
      raise ValueError(
        f'archs of shape {archs_AxE.shape}; {self.name} needs '
        f'(A, {self.positions}).'
      )
    counts_E = np.array(self.counts)
    bad_AxE = (archs_AxE < 0) | (archs_AxE >= counts_E)
    if bad_AxE.any():
      a, e = np.argwhere(bad_AxE)[0]
      raise ValueError(
        f'op {archs_AxE[a, e]} at position {e} of arch {a}; {self.name} '
        f'allows 0 to {counts_E[e] - 1} there: {", ".join(self.ops[e])}.'
      )
    self._forbidden(archs_AxE)

  def allowed(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Bool[np.ndarray, ' A']:
    """Returns True for in-range archs that belong to the space."""
    return np.ones(len(archs_AxE), bool)

  def _forbidden(self, archs_AxE: Int[np.ndarray, 'A E']) -> None:
    """Raises ValueError for in-range archs that the space excludes."""

  def _check_enumerable(self) -> None:
    if not self.enumerable:
      raise ValueError(
        f'{self.name} has {self.size:.2g} architectures, too many to list.'
      )

  @property
  def _digits(self) -> bool:
    return max(self.counts) <= 10

  @property
  def _rule(self) -> str:
    if not self._digits:
      return f'{self.positions} positions, with commas between them'
    allowed = ', '.join(map(str, range(self.counts[0] - 1)))
    return f'{self.positions} positions, each {allowed} or {self.counts[0] - 1}'


def _size(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape))
