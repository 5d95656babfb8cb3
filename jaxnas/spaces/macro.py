"""NAS-Bench-Macro (Su et al., CVPR 2021), and the digits space, built alike.

The text of an arch has a digit for each position: 0 is the identity, 1 MB3_K3,
2 MB6_K5.
"""

from jaxnas.spaces.chain import Block, Stage, chain

BLOCKS = (Block(3, 3), Block(6, 5))

NAS_BENCH_MACRO = chain(
  'nas_bench_macro',
  image_shape=(32, 32, 3),
  classes=10,
  any_images=True,
  stem=32,
  stages=(Stage(2, 64), Stage(3, 128), Stage(3, 256)),
  blocks=BLOCKS,
  head=1280,
)

# scikit-learn's digits: 81 architectures that train in seconds.
DIGITS = chain(
  'digits',
  image_shape=(8, 8, 1),
  classes=10,
  any_images=True,
  stem=4,
  stages=(Stage(2, 6), Stage(2, 8)),
  blocks=BLOCKS,
  head=32,
)
