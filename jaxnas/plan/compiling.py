"""The training step of a config, compiled for a machine that is not there."""

import contextlib
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxnas import build, data, validation
from jaxnas.config import Config, Mesh
from jaxnas.nn import target
from jaxnas.plan import program, stand_ins, topologies
from jaxnas.plan.topologies import Topology
from jaxnas.training import mesh

# Of effort that a compiler takes to make programs fast; 0 is the usual.
LEAST = -1.0


class DoesNotFit(Exception):
  """The compiler found no way to run a step in the memory that there is."""


class Compiled(NamedTuple):
  """A step for one batch size."""

  batch_size: int
  memory_bytes: int
  """Of one device at the peak: state, inputs, temporaries, program."""
  state_bytes: int
  """Of them, what is as large at any batch: what is trained."""
  traffic: program.Traffic


def on(config: Config, topology: Topology) -> Config:
  """The config on all of a machine's devices.

  `mesh.paths` is the config's, and what that leaves share the batch. Raises
  ValueError where the batch or the mesh do not divide so.
  """
  paths = config.mesh.paths
  share, rest = divmod(topology.devices, paths)
  if rest or config.mesh.data not in (1, share):
    raise ValueError(
      f'mesh.data {config.mesh.data} times mesh.paths {paths} is not the '
      f'{topology.devices} devices of {topology.name}: leave mesh.data out, '
      'and choose a mesh.paths that divides them.'
    )
  config = dataclasses.replace(config, mesh=Mesh(share, paths))
  validation.validate(config)
  return config


def experiment(config: Config, topology: Topology) -> build.Experiment:
  """As `build.experiment`, of images that stand in; nothing of it can run.

  Raises as `on` and `build.experiment` do.
  """
  return _built(config, topology, stand_ins.images(config))


def compile_step(
  config: Config, topology: Topology, batch_size: int, *, quick: bool = False
) -> Compiled:
  """Raises DoesNotFit, or as `experiment` does.

  Quick is with little optimization: NAS-Bench-Macro on four v5e then takes 40
  seconds instead of 210, 15% more memory, and twice the traffic.
  """
  config = dataclasses.replace(
    config, data=dataclasses.replace(config.data, batch_size=batch_size)
  )
  images = stand_ins.images(config)
  built = _built(config, topology, images)
  whole, rows = _shardings(built.config, topology)
  with target.formulated_for(_backend(topology)):
    state = _shapes(jax.eval_shape(built.init_state), whole)
    leaves, tree = jax.tree.flatten(inputs(built, images))
    # Streamed images come as rows of a batch; others lie on every device.
    placed = rows if isinstance(images, data.Photos) else whole

    # In pieces, as what they make up wants arrays, where types are checked.
    def step(state, leaves):
      return built.step_fn(state, tree.unflatten(leaves))

    lowered = jax.jit(step, donate_argnums=0, out_shardings=whole).lower(
      state, _shapes(leaves, placed)
    )
  try:
    # A number, which its type does not foresee.
    options: Any = {'exec_time_optimization_effort': LEAST}
    compiled = lowered.compile(options if quick else None)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' in str(error):
      raise DoesNotFit from error
    raise
  # Compilers need not answer; those of TPUs and GPUs do.
  sizes: Any = compiled.memory_analysis()
  text: Any = compiled.as_text()
  return Compiled(
    batch_size,
    memory_bytes=sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
    + sizes.generated_code_size_in_bytes,
    # Donated, and the only thing that is.
    state_bytes=sizes.alias_size_in_bytes,
    traffic=program.traffic(text, topology.devices),
  )


def inputs(built: build.Experiment, images: data.DataSet) -> Any:
  """Of a step: arrays or their shapes; streamed images are never made."""
  if not isinstance(images, data.Photos):
    with contextlib.closing(built.training.feed(0, 0)) as feed:
      return next(feed)
  count = built.config.data.batch_size
  batch = (
    jax.ShapeDtypeStruct((count, *images.image_shape), jnp.uint8),
    jax.ShapeDtypeStruct((count,), jnp.int32),
  )
  return batch if built.training.reward is None else (batch, batch)


def _built(
  config: Config, topology: Topology, images: data.DataSet
) -> build.Experiment:
  config = on(config, topology)
  with target.formulated_for(_backend(topology)):
    return build.experiment(config, images, topologies.devices(topology))


def _shardings(config: Config, topology: Topology) -> tuple[Any, Any]:
  """Of what is whole on every device, and of batches."""
  devices = topologies.devices(topology)
  layout = mesh.layout(
    config.mesh.data, config.mesh.paths, config.supernet.bn_groups, devices
  )
  if layout is None:
    only = SingleDeviceSharding(devices[0])
    return only, only
  rows = NamedSharding(layout.mesh, PartitionSpec(mesh.IMAGES))
  return layout.whole, rows


def _shapes(tree: Any, sharding: Any) -> Any:
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    tree,
  )


def _backend(topology: Topology) -> str:
  return 'tpu' if topology.chip.platform == 'tpu' else 'gpu'
