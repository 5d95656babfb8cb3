"""An architecture that is handed over: parameters, metadata and a program.

The program needs jax and flatbuffers, and neither jaxnas nor Flax:

    from jax import export
    network = export.deserialize(open('network.bin', 'rb').read())
    logits_BxK = network.call(images_BxHxWxC)

Images are uint8, or float32 where those of training were, in batches of any
size; they are normalised inside. It holds
all weights, and a formulation for CPU and one for CUDA and TPU, the latter not
run yet. JAX reads what its releases of at least the last six months have
written.

The parameters are those of a `supernets.StandAlone`, which `load` builds again.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from jaxtyping import Array, Float

from jaxnas import data, spaces, supernets
from jaxnas.nn.cpu import native
from jaxnas.nn.layers import MOMENTUM
from jaxnas.runtime import files
from jaxnas.spaces import Space
from jaxnas.training import checkpoint

PROGRAM, METADATA, VARIABLES = 'network.bin', 'network.json', 'params'
README, REQUIREMENTS = 'README.md', 'requirements.txt'
TORCH_WEIGHTS, ONNX = 'weights.pt', 'network.onnx'
FILES = (
  PROGRAM, METADATA, VARIABLES, README, REQUIREMENTS, TORCH_WEIGHTS, ONNX,
)  # fmt: skip

PLATFORMS = 'cpu', 'cuda', 'tpu'


# Images on which logits are compared, and on which the accuracy is measured.
COMPARED, MEASURED, BATCH = 64, 1000, 250

# Largest difference, as a share of the largest logit: programs that are
# compiled differently round differently.
TOLERANCE = {'float32': 0.01, 'bfloat16': 0.1}


def network(
  space: Space, arch: tuple[int, ...], dtype: Any, activation: str | None
) -> supernets.StandAlone:
  """Returns the network that `jaxnas.retrain` trains.

  Its normalisation is affine and keeps running statistics.

  Args:
    space: for the images at hand.
    arch: of the network.
    dtype: of the computation.
    activation: of `supernets.build`.
  """
  net = supernets.build(
    space, dtype=dtype, affine=True, momentum=MOMENTUM, activation=activation
  )
  alone = supernets.StandAlone(net, arch)
  supernets.check_alone(alone)
  return alone


def inherit(
  alone: supernets.StandAlone, net: Any, params: Any, statistics: Any
) -> dict[str, Any]:
  """Returns variables that make a network alone equal to a supernet's part.

  Scales and biases that the supernet lacks are the identity.

  Args:
    alone: from `network`.
    net: the supernet, without members.
    params: its shared weights.
    statistics: from `recalibration.statistics`, for the same architecture.
  """
  assert alone.arch is not None
  # The variables that the supernet's definition would have alone.
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
  """Computes logits of normalised images; statistics stay frozen."""
  return alone.apply(variables, x_BxHxWxC, alone.arch, train=False)


def program(
  alone: supernets.StandAlone, variables: Any, normalise: data.Normalise
) -> export.Exported:
  """Returns the program, weights inside: raw images to float32 logits.

  Shapes are (b, H, W, C) and (b, K) for any b.

  Args:
    alone: from `network`.
    variables: of it, frozen.
    normalise: raw images -> as the network takes them.
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
  shape = batch, *alone.space.image_shape
  images = jax.ShapeDtypeStruct(shape, normalise.pixels)
  with native.without():
    return export.export(jax.jit(call), platforms=PLATFORMS)(images)


def write(
  folder: Path,
  alone: supernets.StandAlone,
  variables: Any,
  normalise: data.Normalise,
  metadata: Mapping[str, Any],
) -> None:
  """Writes parameters, program and metadata to a new folder.

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
  with files.whole(folder / PROGRAM) as stream:
    stream.write(exported.serialize())
  checkpoint.write(folder / VARIABLES, variables)
  files.write_json(folder / METADATA, dict(metadata))


def load(folder: Path) -> tuple[supernets.StandAlone, dict[str, Any]]:
  """Loads the network in a folder, and its variables.

  Made for `logits`, or to be trained further.
  """
  metadata = files.read_json(
    folder / METADATA,
    {
      'space': str,
      'arch': str,
      'image_shape': list,
      'classes': int,
      'dtype': str,
      'activation': (str, type(None)),
    },
  )
  space = spaces.get(metadata['space']).on_images(
    tuple(metadata['image_shape']), metadata['classes']
  )
  arch = tuple(space.parse(metadata['arch']).tolist())
  alone = network(
    space, arch, jnp.dtype(metadata['dtype']), metadata['activation']
  )
  like = supernets.shapes(alone, arch)
  return alone, checkpoint.read(folder / VARIABLES, like)


def load_program(folder: Path) -> export.Exported:
  """Reads the program, as the three lines above do."""
  with files.opened(folder / PROGRAM) as stream:
    return export.deserialize(bytearray(stream.read()))


def check(
  folder: Path,
  expected: Callable[[Any], Any],
  held_out: data.Split,
  others: Sequence[Callable[[np.ndarray], Any]] = (),
) -> dict[str, Any]:
  """Reads back what `write` wrote, and holds it to known logits.

  Args:
    folder: with program and parameters.
    expected: normalised images -> logits.
    held_out: images, of which a few are compared and more are classified by
      the program.
    others: raw images -> logits, of other forms that were written.

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
  said = [call(read_BxHxWxC), rebuilt(variables, x_BxHxWxC)]
  said += [say(np.asarray(read_BxHxWxC)) for say in others]
  difference = max(
    float(np.abs(np.asarray(found_BxK) - expected_BxK).max())
    for found_BxK in said
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
