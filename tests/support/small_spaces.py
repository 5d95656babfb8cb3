"""The spaces of the benchmarks, made small so that they compile fast."""

import dataclasses

from jaxnas import spaces
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.spaces.mobilenet import BLOCKS

POOLING = spaces.get('pooling')

# Two cells a stage on 8x8 images.
SMALL_CELLS = dataclasses.replace(
  spaces.get('nas_bench_201'),
  name='small_cells',
  image_shape=(8, 8, 3),
  channels=4,
  cells=2,
)
# Two stages of MobileNet on 16x16 images, with a loop of three positions.
SMALL_MOBILENET = chain(
  'small_mobilenet',
  image_shape=(16, 16, 3),
  classes=10,
  stem=6,
  stem_stride=2,
  first=(Block(1, 3), 4),
  stages=(Stage(4, 8), Stage(1, 12, 1)),
  blocks=BLOCKS,
  identity_everywhere=False,
  head=20,
  activation='hard_swish',
)
# Four blocks on 16x16 images.
SMALL_POOLING = dataclasses.replace(
  POOLING,
  name='small_pooling',
  ops=POOLING.ops[:4],
  image_shape=(16, 16, 3),
  channels=(4, 4, 8, 8),
  stem=4,
)
