"""Compiles the training step of a config for a machine that is not there."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxnas import data
from jaxnas.config import Config, validation
from jaxnas.experiment import build
from jaxnas.nn import target
from jaxnas.plan import kinds, program, stand_ins, thunks, topologies
from jaxnas.plan.topologies import Topology
from jaxnas.runtime import graphs
from jaxnas.training import mesh

# The least effort that a compiler takes to make programs fast; 0 is usual.
LEAST = -1.0


class DoesNotFit(Exception):
  """The compiler found no way to run a step in the memory of the machine."""


class Compiled(NamedTuple):
  """A step for one batch size, compiled alone or with those after it."""

  batch_size: int
  compile_s: float
  """Seconds of the compiler for all steps of a dispatch."""
  memory_bytes: int
  """Memory of one device at the peak: state, inputs, temporaries, program."""
  state_bytes: int
  """The part of it that is as large for any batch: the training state."""
  traffic: program.Traffic
  kinds: Mapping[str, float] = MappingProxyType({})
  """Bytes of memory traffic by kind of work."""
  host: tuple[thunks.Host, thunks.Host] | None = None
  """On GPUs, what the host does without CUDA graphs and with them."""


def on(config: Config, topology: Topology) -> Config:
  """Returns the config on all of a machine's devices.

  `mesh.paths` stays, and the rest of the devices share the batch. Raises
  ValueError where the batch or the mesh do not divide so. An augmentation of
  one's own is left out where images are streamed.
  """
  paths = config.mesh.paths
  share, rest = divmod(topology.devices, paths)
  if rest or config.mesh.data not in (1, share):
    raise ValueError(
      f'mesh.data {config.mesh.data} times mesh.paths {paths} is not the '
      f'{topology.devices} devices of {topology.name}: leave mesh.data out, '
      'and choose a mesh.paths that divides them.'
    )
  config = dataclasses.replace(
    config, mesh=dataclasses.replace(config.mesh, data=share)
  )
  if config.data.name == 'imagenet':
    # Its key would come with the images, which have none here.
    data = dataclasses.replace(config.data, augment=None)
    config = dataclasses.replace(config, data=data)
  validation.validate(config)
  return config


def experiment(config: Config, topology: Topology) -> build.Experiment:
  """Builds the experiment with stand-in images; nothing in it can run.

  Raises ValueError as `on` and `build.experiment` do.
  """
  return _built(config, topology, stand_ins.images(config))


def compile_step(
  config: Config, topology: Topology, batch_size: int, *, quick: bool = False
) -> Compiled:
  """Compiles the training step, or as many as `mesh.steps_per_dispatch` asks.

  With `quick` the compiler optimizes little: NAS-Bench-Macro on four v5e then
  takes 40 seconds instead of 210, 15% more memory, and twice the traffic.

  Raises DoesNotFit where a step needs more memory than there is, and ValueError
  as `experiment` does.
  """
  config = dataclasses.replace(
    config, data=dataclasses.replace(config.data, batch_size=batch_size)
  )
  images = stand_ins.images(config)
  built = _built(config, topology, images)
  whole, rows = _shardings(built.config, topology)
  count = built.config.mesh.steps_per_dispatch or 1
  run = built.step_fn if count == 1 else built.step_fn.many(count)
  with target.formulated_for(_backend(topology)):
    state = _shapes(jax.eval_shape(built.init_state), whole)
    leaves, tree = jax.tree.flatten(inputs(built, images))
    # Streamed images arrive as rows of a batch; others lie on every device.
    placed = rows if isinstance(images, data.Photos) else whole

    # Inputs come in pieces, as their type wants arrays where types are checked.
    def step(state, leaves):
      return run(state, tree.unflatten(leaves))

    lowered = jax.jit(step, donate_argnums=0, out_shardings=whole).lower(
      state, _shapes(leaves, placed)
    )
  with tempfile.TemporaryDirectory() as dump:
    options: dict[str, Any] = {}
    if quick:
      options['exec_time_optimization_effort'] = LEAST
    if topology.chip.platform == 'cuda':
      options |= {**graphs.OPTIONS, 'xla_dump_to': dump}
    start_s = time.monotonic()
    try:
      compiled = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' in str(error):
        raise DoesNotFit from error
      raise
    compile_s = time.monotonic() - start_s
    # Compilers may leave these out; those of TPUs and GPUs do not.
    sizes: Any = compiled.memory_analysis()
    text: Any = compiled.as_text()
    read = program.Program(text, topology.devices, taken(built.net))
    host = thunks.read(Path(dump), read.loops())
  return Compiled(
    batch_size,
    compile_s,
    memory_bytes=sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
    + sizes.generated_code_size_in_bytes,
    # The state is donated, and nothing else is.
    state_bytes=sizes.alias_size_in_bytes,
    traffic=read.traffic() * (1 / count),
    kinds={kind: of / count for kind, of in kinds.by_kind(read).items()},
    host=host and (host[0].of_one(count), host[1].of_one(count)),
  )


def taken(net: Any) -> program.Taken:
  """Returns the shares of architectures that take each branch of a net.

  Where it does not say, a branch is taken as often as the others, as those of
  candidates are under uniform sampling.
  """
  shares = net.taken() if hasattr(net, 'taken') else []
  return dict(enumerate(shares))


def inputs(built: build.Experiment, images: data.DataSet) -> Any:
  """Returns a step's inputs: arrays, or shapes where images are streamed."""
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
  """Returns the placement of what every device has whole, and of batches."""
  devices = topologies.devices(topology)
  layout = mesh.layout(
    config.mesh.data, config.mesh.paths, config.supernet.bn_groups, devices
  )
  if layout is None:
    only = SingleDeviceSharding(devices[0])
    return only, only
  rows = NamedSharding(layout.mesh, PartitionSpec(mesh.IMAGES))
  return layout.replicated, rows


def _shapes(tree: Any, sharding: Any) -> Any:
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    tree,
  )


def _backend(topology: Topology) -> str:
  return 'tpu' if topology.chip.platform == 'tpu' else 'gpu'
