"""NAS-Bench-201 (Dong and Yang, ICLR 2020): one cell, repeated.

The FLOPs that the benchmark publishes are our multiply-adds and one a class,
10 on CIFAR-10: it counts the bias of the classifier. Parameters are the same.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int

from jaxnas.runtime.words import counted
from jaxnas.spaces.base import Costs, Space

OPS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
# Positions are the edges of a cell: (from node, to node).
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES = 4
_KERNELS = {'nor_conv_1x1': 1, 'nor_conv_3x3': 3}


@dataclasses.dataclass(frozen=True)
class CellSpace(Space):
  """Cells of four nodes and six edges; a node sums the outputs of its edges.

  Each of three stages repeats the cell `cells` times; between stages a residual
  block of stride 2 doubles the channels. The text of an arch is
  |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, one group for each node after the first.
  """

  channels: int
  """Channels of the 3x3 stem and of the first stage."""
  cells: int
  """Number of cells in a stage."""

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each stage."""
    return tuple(self.channels * 2**stage for stage in range(3))

  def parse(self, text: str) -> Int[np.ndarray, ' E']:
    words = [
      word for group in text.split('+') for word in group.strip('|').split('|')
    ]
    if len(words) != self.positions:
      raise ValueError(
        f'{text!r} has {counted(len(words), "op")}; {self.name} has '
        f'{self.positions}, such as '
        f'{self.format(np.zeros(self.positions, np.int32))}.'
      )
    arch_E = np.zeros(self.positions, np.int32)
    for e, (word, (source, _)) in enumerate(zip(words, EDGES, strict=True)):
      name, _, node = word.partition('~')
      if name not in OPS:
        raise ValueError(
          f'op {name!r} at position {e}; {self.name} allows {", ".join(OPS)} '
          'there.'
        )
      if node != str(source):
        raise ValueError(
          f'node {node!r} at position {e} of {text!r}; it must be {source}.'
        )
      arch_E[e] = OPS.index(name)
    if self.format(arch_E) != text:
      raise ValueError(
        f'{text!r} is not written as {self.name} has it: {self.format(arch_E)}'
      )
    return arch_E

  def format(self, arch_E: Int[np.ndarray, ' E']) -> str:
    groups = [
      ''.join(
        f'|{OPS[op]}~{source}'
        for op, (source, target) in zip(arch_E, EDGES, strict=True)
        if target == node
      )
      for node in range(1, NODES)
    ]
    return '+'.join(f'{group}|' for group in groups)

  def canonical(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, 'A E']:
    """Maps archs that the benchmark counts as one to the first: 6,466 remain.

    Its rule writes a cell as an expression of its input, in which skips
    vanish and convolutions of nothing are nothing. Some cells that compute the
    same are written differently.
    """
    return self.enumerate()[_first_alike()[self.index(archs_AxE)]]

  def connected(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Bool[np.ndarray, ' A']:
    """True for cells whose input reaches their output, 15,284 in all."""
    reached = [np.ones(len(archs_AxE), bool)]
    for node in range(1, NODES):
      arrives = [
        reached[source] & (archs_AxE[:, e] != 0)
        for e, (source, target) in enumerate(EDGES)
        if target == node
      ]
      reached.append(np.any(arrives, axis=0))
    return reached[-1]

  def complexity(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, ' A']:
    """Level of the most convolutions on any path from input to output.

    At most one is level 0, two are 1, three are 2; cells whose input does not
    reach their output have none (-1).
    """
    convolves_AxE = _convolves(archs_AxE)
    most = [np.zeros(len(archs_AxE), np.int64)]
    for node in range(1, NODES):
      # Below 0 where nothing arrives, whatever is added on the way.
      most.append(
        np.max(
          [
            np.where(
              archs_AxE[:, e] != 0, most[source] + convolves_AxE[:, e], -NODES
            )
            for e, (source, target) in enumerate(EDGES)
            if target == node
          ],
          axis=0,
        )
      )
    return np.where(most[-1] < 0, -1, np.maximum(most[-1] - 1, 0))

  def on_images(self, image_shape: tuple[int, int, int], classes: int) -> Space:
    if any(side % 4 for side in image_shape[:2]):
      height, width, _ = image_shape
      raise ValueError(
        f'{self.name} halves its maps twice: images need sides that 4 divides; '
        f'these are {height}x{width}.'
      )
    return super().on_images(image_shape, classes)

  def depth(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    """Number of convolutions in a cell."""
    return _convolves(archs_AxE).sum(axis=1)

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    self.validate(archs_AxE)
    height, width, inputs = self.image_shape
    params = 9 * inputs * self.channels + 2 * self.channels
    macs = 9 * inputs * self.channels * height * width
    params_A = np.zeros(len(archs_AxE), np.int64)
    macs_A = np.zeros(len(archs_AxE), np.int64)
    # Weights of a cell's convolutions in units of channels squared.
    weights_A = sum(
      kernel**2 * (archs_AxE == OPS.index(op)).sum(axis=1)
      for op, kernel in _KERNELS.items()
    )
    before = self.channels
    for channels in self.widths:
      if channels != before:
        height, width = (-(-side // 2) for side in (height, width))
        # Two 3x3 convolutions, and the shortcut's without normalisation.
        weights = 9 * channels * (before + channels) + before * channels
        params += weights + 4 * channels
        macs += weights * height * width
      convolutions_A = self.cells * channels**2 * weights_A
      params_A += convolutions_A + 2 * channels * self.cells * self.depth(
        archs_AxE
      )
      macs_A += convolutions_A * (height * width)
      before = channels
    params += 2 * before + self.classes * (before + 1)
    return Costs(params_A + params, macs_A + macs + before * self.classes)


def _convolves(
  archs_AxE: Int[np.ndarray, 'A E'],
) -> Bool[np.ndarray, 'A E']:
  """Returns True at edges that are convolutions."""
  return np.isin(archs_AxE, [OPS.index(op) for op in _KERNELS])


@functools.cache
def _first_alike() -> Int[np.ndarray, ' A']:
  """Row of the first arch with the same expression, for each arch."""
  first: dict[str, int] = {}
  return np.array(
    [
      first.setdefault(_expression(arch_E), a)
      for a, arch_E in enumerate(NAS_BENCH_201.enumerate())
    ]
  )


def _expression(arch_E: Int[np.ndarray, ' E']) -> str:
  """Writes what a cell computes by the benchmark's rule."""
  nodes = ['x']
  for node in range(1, NODES):
    terms = []
    for op, (source, target) in zip(arch_E, EDGES, strict=True):
      if target != node:
        continue
      name, inner = OPS[op], nodes[source]
      if name == 'none' or inner == '#':
        terms.append('#')
      elif name == 'skip_connect':
        terms.append(inner)
      else:
        terms.append(f'({inner})@{name}')
    nodes.append('+'.join(sorted(terms)))
  return nodes[-1]


NAS_BENCH_201 = CellSpace(
  'nas_bench_201',
  (OPS,) * len(EDGES),
  image_shape=(32, 32, 3),
  classes=10,
  any_images=True,
  channels=16,
  cells=5,
)
