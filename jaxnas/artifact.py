"""One architecture handed over: parameters, facts, and a program.

The program needs jax and flatbuffers, and neither jaxnas nor Flax:

    from jax import export
    network = export.deserialize(open('network.bin', 'rb').read())
    logits_BxK = network.call(images_BxHxWxC)

Images are uint8, in batches of any size; they are normalised inside. It holds
all weights, and a formulation for CPU and one for CUDA and TPU, the latter not
run yet. JAX reads what its releases of at least the last six months have
written.

The parameters are those of a `supernets.StandAlone`, which `load` builds again.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from jaxtyping import Array, Float

from jaxnas import data, runs, spaces, supernets
from jaxnas.nn import native
from jaxnas.nn.layers import MOMENTUM
from jaxnas.spaces import Space
from jaxnas.training import checkpoint

PROGRAM, FACTS, VARIABLES = 'network.bin', 'network.json', 'params'

PLATFORMS = 'cpu', 'cuda', 'tpu'


# Images on which logits are compared, and on which the accuracy is measured.
COMPARED, MEASURED, BATCH = 64, 1000, 250

# Largest difference, as a share of the largest logit: programs that are
# compiled differently round differently.
TOLERANCE = {'float32': 0.01, 'bfloat16': 0.1}


def network(
  space: Space, arch: tuple[int, ...], dtype: Any, activation: str | None
) -> supernets.StandAlone:
  """As `jaxnas.retrain` trains it: affine, with running statistics.

  Args:
    space: for the images at hand.
    arch: of the network.
    dtype: of the computation.
    activation: of `supernets.build`.
  """
  net = supernets.build(
    space, dtype=dtype, affine=True, momentum=MOMENTUM, activation=activation
  )
  return supernets.StandAlone(net, arch)


def inherit(
  alone: supernets.StandAlone, net: Any, params: Any, statistics: Any
) -> dict[str, Any]:
  """Variables with which a network alone is what a supernet has of it.

  Scales and biases that the supernet lacks are the identity.

  Args:
    alone: from `network`.
    net: the supernet, without members.
    params: its shared weights.
    statistics: from `recalibration.statistics`, for the same architecture.
  """
  assert alone.arch is not None
  # What the supernet's definition would have, were it alone.
  own = supernets.shapes(supernets.with_momentum(net, MOMENTUM), alone.arch)
  shared = _flat({'params': params, 'batch_stats': statistics})
  # Fresh scales are 1 and fresh biases 0; all else is overwritten.
  variables = _flat(supernets.init(alone, alone.arch, 0))
  for path in _flat(own):
    variables[path] = shared[path]
  return traverse_util.unflatten_dict(variables)


def _flat(tree: Any) -> dict[Any, Any]:
  return traverse_util.flatten_dict(tree)


def logits(
  alone: supernets.StandAlone,
  variables: Any,
  x_BxHxWxC: Float[Array, 'B H W C'],
) -> Float[Array, 'B K']:
  """What a network says of normalised images, its statistics frozen."""
  return alone.apply(variables, x_BxHxWxC, alone.arch, train=False)


def program(
  alone: supernets.StandAlone, variables: Any, normalise: Callable[[Any], Any]
) -> export.Exported:
  """uint8 images (b, H, W, C) -> float32 logits (b, K), weights inside.

  Args:
    alone: from `network`.
    variables: of it, frozen.
    normalise: uint8 images -> as the network takes them.
  """

  def on(backend: str) -> Callable[[Any, Any], Any]:
    net = dataclasses.replace(
      alone, net=supernets.formulated(alone.net, backend)
    )
    return lambda variables, x_BxHxWxC: logits(
      net, variables, normalise(x_BxHxWxC)
    )

  def call(x_BxHxWxC):
    # Variables are operands, so that both formulations share one copy.
    return jax.lax.platform_dependent(
      variables, x_BxHxWxC, cpu=on('cpu'), default=on('gpu')
    )

  (batch,) = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((batch, *alone.space.image_shape), jnp.uint8)
  with native.without():
    return export.export(jax.jit(call), platforms=PLATFORMS)(images)


def write(
  folder: Path,
  alone: supernets.StandAlone,
  variables: Any,
  normalise: Callable[[Any], Any],
  facts: Mapping[str, Any],
) -> None:
  """Parameters, program and facts in a folder that is not there yet.

  Args:
    folder: where to.
    alone: from `network`.
    variables: of it.
    normalise: as in `program`.
    facts: for network.json, with what `load` needs: space, arch, image_shape,
      classes, dtype and activation.
  """
  folder.mkdir(parents=True)
  exported = program(alone, variables, normalise)
  (folder / PROGRAM).write_bytes(exported.serialize())
  checkpoint.write(folder / VARIABLES, variables)
  runs.write_json(folder / FACTS, dict(facts))


def load(folder: Path) -> tuple[supernets.StandAlone, dict[str, Any]]:
  """The network in a folder, and its variables.

  Made for `logits`, or to be trained further.
  """
  facts = runs.read_json(
    folder / FACTS,
    {
      'space': str,
      'arch': str,
      'image_shape': list,
      'classes': int,
      'dtype': str,
      'activation': (str, type(None)),
    },
  )
  space = spaces.get(facts['space']).on_images(
    tuple(facts['image_shape']), facts['classes']
  )
  arch = tuple(space.parse(facts['arch']).tolist())
  alone = network(space, arch, jnp.dtype(facts['dtype']), facts['activation'])
  like = supernets.shapes(alone, arch)
  return alone, checkpoint.read(folder / VARIABLES, like)


def load_program(folder: Path) -> export.Exported:
  """As the three lines above."""
  return export.deserialize(bytearray((folder / PROGRAM).read_bytes()))


def check(
  folder: Path, expected: Callable[[Any], Any], held_out: data.Split
) -> dict[str, Any]:
  """Reads back what `write` wrote, and holds it to known logits.

  Args:
    folder: with program and parameters.
    expected: normalised images -> logits.
    held_out: images, of which a few are compared and more are classified by
      the program.

  Returns:
    The largest difference and the accuracy, ready for JSON.

  Raises ArithmeticError where logits differ by more than rounding.
  """
  (alone, variables), exported = load(folder), load_program(folder)
  call, rebuilt = (
    jax.jit(exported.call),
    jax.jit(functools.partial(logits, alone)),
  )
  read_BxHxWxC, _ = held_out.read(np.arange(min(COMPARED, len(held_out))))
  x_BxHxWxC = held_out.normalise(read_BxHxWxC)
  expected_BxK = np.asarray(expected(x_BxHxWxC))
  difference = max(
    float(np.abs(np.asarray(found_BxK) - expected_BxK).max())
    for found_BxK in (call(read_BxHxWxC), rebuilt(variables, x_BxHxWxC))
  )
  allowed = TOLERANCE[str(alone.dtype)] * float(np.abs(expected_BxK).max())
  # NaN is within nothing.
  if not difference <= allowed:
    raise ArithmeticError(
      f'logits of the exported network differ by {difference:.2g} from those '
      f'of the run, more than {allowed:.2g}: do not use {folder}.'
    )
  count, hits = min(MEASURED, len(held_out)), 0
  for indices_B in np.array_split(np.arange(count), -(-count // BATCH)):
    read_BxHxWxC, y_B = held_out.read(indices_B)
    hits += int((call(read_BxHxWxC).argmax(-1) == y_B).sum())
  return {
    'largest_difference': difference,
    'accuracy': hits / count,
    'accuracy_images': count,
  }
