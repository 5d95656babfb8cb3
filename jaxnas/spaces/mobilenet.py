"""The MobileNet space of one-shot search on ImageNet: 13^21 architectures.

It has 21 positions in six stages, each the identity or an MB block with
expansion 3 or 6, kernel 3, 5 or 7, with or without squeeze-and-excitation. The
seven ops without it are published (Roshtkhari et al., CVPR Findings 2026,
supplement). Inferred: the 13 ops are those and the six with it, and the blocks
have hard-swish. Parameters and multiply-adds equal exactly those published for
MCT-NAS-A and -B and GreedyNAS-B.

The text of an arch lists the names of its ops with commas between them.

Its supernet has 45,233,964 parameters and one program. On 2 cores of an AMD
EPYC at batch 8, 224x224, float32 the training step takes 44 s to trace and 87
s to compile, once; a step takes about 1 s and 234 MB beside 186 MB of
parameters and 181 MB of gradients. The compiler itself needs 5.4 GB.
"""

from typing import Any

from jaxnas.spaces.chain import Block, Stage, chain

BLOCKS = tuple(
  Block(expansion, kernel, squeeze)
  for squeeze in (False, True)
  for expansion in (3, 6)
  for kernel in (3, 5, 7)
)
_FIELDS: dict[str, Any] = {
  'image_shape': (224, 224, 3),
  'classes': 1000,
  'any_images': True,
  'stem': 32,
  'stem_stride': 2,
  'first': (Block(1, 3), 16),
  'stages': (
    Stage(4, 32),
    Stage(4, 40),
    Stage(4, 80),
    Stage(4, 96, stride=1),
    Stage(4, 192),
    Stage(1, 320, stride=1),
  ),
  'blocks': BLOCKS,
  'head': 1280,
  'activation': 'hard_swish',
}

MOBILENET = chain('mobilenet', **_FIELDS)

# Positions that change the shape lack the identity, a strided 1x1 convolution.
MOBILENET_STRICT = chain(
  'mobilenet_strict', identity_everywhere=False, **_FIELDS
)
