"""What a search space is: architectures as rows of op indices."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped


class Costs(NamedTuple):
  """Of stand-alone networks: parameters, and multiply-adds of one image."""

  params_A: Int[np.ndarray, ' A']
  macs_A: Int[np.ndarray, ' A']


@dataclasses.dataclass(frozen=True)
class Space:
  """A product of choices: one op at each position.

  An arch is an int32 vector of E op indices, archs a matrix of A rows. What
  is written here holds for a full product with one digit a position; a space
  with other rules overrides `enumerate`, `index`, `parse`, `format` and
  `_forbidden`.
  """

  name: str
  ops: tuple[tuple[str, ...], ...]
  """Candidates at each position."""
  image_shape: tuple[int, int, int]
  """Height, width, channels of an image."""
  classes: int

  @property
  def positions(self) -> int:
    return len(self.ops)

  @property
  def counts(self) -> tuple[int, ...]:
    """How many candidates each position has."""
    return tuple(map(len, self.ops))

  @property
  def size(self) -> int:
    return int(np.prod(self.counts, dtype=object))

  def parse(self, text: str) -> Int[np.ndarray, ' E']:
    """The arch that `format` writes so. ValueError says what is wrong."""
    # int() takes other scripts' digits too, and isdigit() the '²'.
    if text and not (text.isascii() and text.isdecimal()):
      raise ValueError(
        f'{text!r} is not all digits; {self.name} has {self._rule}.'
      )
    if len(text) != self.positions:
      raise ValueError(
        f'{text!r} has {len(text)} digits; {self.name} has {self._rule}.'
      )
    arch_E = np.array([int(digit) for digit in text], np.int32)
    self.validate(arch_E[None])
    return arch_E

  def format(self, arch_E: Int[np.ndarray, ' E']) -> str:
    return ''.join(map(str, arch_E))

  def enumerate(self) -> Int[np.ndarray, 'A E']:
    """All architectures, in lexicographic order."""
    return np.indices(self.counts, np.int32).reshape(self.positions, -1).T

  def index(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    """Row of each arch in `enumerate`."""
    self.validate(archs_AxE)
    rows_A = np.ravel_multi_index(tuple(archs_AxE.T), self.counts)
    return np.asarray(rows_A)

  def random(
    self, rng: np.random.Generator, count: int
  ) -> Int[np.ndarray, 'A E']:
    """Independent uniform draws."""
    return rng.integers(self.counts, size=(count, self.positions)).astype(
      np.int32
    )

  def canonical(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, 'A E']:
    """One of all the archs that are the same stand-alone network."""
    return archs_AxE

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    """Convolutions, linear layers and affine batch normalisation.

    Multiply-adds leave normalisation out, as the benchmarks do.
    """
    raise TypeError(f'{type(self).__name__} does not define its costs.')

  def baselines(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> dict[str, Int[np.ndarray, ' A']]:
    """What ranks architectures without any training."""
    costs = self.costs(archs_AxE)
    return {
      'params': costs.params_A,
      'macs': costs.macs_A,
      'layers': (archs_AxE != 0).sum(axis=1),
    }

  def validate(self, archs_AxE: Shaped[np.ndarray, '...']) -> None:
    """Raises ValueError naming the value, its position and what is allowed."""
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

  def _forbidden(self, archs_AxE: Int[np.ndarray, 'A E']) -> None:
    """Raises ValueError for in-range archs that the space excludes."""

  @property
  def _rule(self) -> str:
    allowed = ', '.join(map(str, range(self.counts[0] - 1)))
    return f'{self.positions} positions, each {allowed} or {self.counts[0] - 1}'
