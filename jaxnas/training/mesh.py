"""The mesh of devices that train together, each on its paths and images.

A row of devices takes a share of the paths, and each device of it a part of the
batch. Devices of one row run the same layers at the same time. Those of
different rows do not, and so exchange nothing before all of them are done: on
CPU, collectives inside branches that differ silently mix wrong data.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnas.data import Placing
from jaxnas.nn.layers import Groups
from jaxnas.runtime import devices

# Axes of the mesh: rows; groups of images in a row, each normalised alone;
# devices that share such a group.
PATHS, GROUPS, SHARDS = 'paths', 'groups', 'shards'
IMAGES = (GROUPS, SHARDS)


class Measured(NamedTuple):
  """Measurements of one path, pytrees of floats; of all, with an axis P."""

  summed: Any
  """Means over images, summed over paths."""
  per_path: Any = ()
  """Means over images of each path."""
  per_image: Any = ()
  """Values of each path and image; images are the axis after P."""


@dataclasses.dataclass(frozen=True)
class DeviceLayout:
  """A mesh, and how paths, images and parameters lie on it."""

  mesh: Mesh
  groups: Groups
  """Groups of the images on a device."""

  @property
  def rows(self) -> int:
    """Number of rows of devices, each of which takes paths of its own."""
    return self.mesh.shape[PATHS]

  @property
  def replicated(self) -> NamedSharding:
    """Sharding of arrays that every device holds whole."""
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def placing(self) -> Placing:
    """Placing of the inputs of training."""
    return Placing(
      self.everywhere, self.within, self.by_rows, self.share, self.batch
    )

  def everywhere(self, tree: Any) -> Any:
    """Puts a pytree of arrays whole on every device."""
    return devices.put(tree, self.replicated)

  def within(self, tree: Any) -> Any:
    """Makes a pytree whole on every device, within a jitted program."""
    return jax.lax.with_sharding_constraint(tree, self.replicated)

  def by_rows(
    self, prepare: Callable[[Any, Any], Any]
  ) -> Callable[[Any, Any], Any]:
    """Lets each device prepare its rows of a batch, within a jitted program.

    Args:
      prepare: (what all share, rows) -> rows; exchanges nothing.
    """
    return jax.shard_map(
      prepare,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec(IMAGES)),
      out_specs=PartitionSpec(IMAGES),
    )

  def share(self, size: int) -> range:
    """Rows of a batch that the devices of this process take."""
    parts = self._rows.addressable_devices_indices_map((size,)).values()
    ranges = [index[0].indices(size) for index in parts if index is not None]
    return range(
      min(start for start, _, _ in ranges), max(stop for _, stop, _ in ranges)
    )

  def batch(self, rows: Any, size: int) -> Any:
    """Puts a batch on the devices, from this process's share of its rows."""
    first = self.share(size).start

    def put(leaf: np.ndarray) -> jax.Array:
      def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(size)
        return leaf[start - first : stop - first]

      return jax.make_array_from_callback(
        (size, *leaf.shape[1:]), self._rows, part
      )

    return jax.tree.map(put, rows)

  @property
  def _rows(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec(IMAGES))

  def side_by_side(
    self, measure: Callable[[Any, Any, Any], Measured]
  ) -> Callable[[Any, Any, Any], Measured]:
    """Returns (shared, archs_PxE, batches) -> measurements on every device.

    Each device takes its share of the paths, one after the other, on its share
    of the images; one all-reduce at the end exchanges everything. P must be a
    multiple of the rows.

    Args:
      measure: (shared, arch_E, a device's part of the batches) -> measurements
        of one path.
    """
    rows, columns = self.rows, self.mesh.size // self.rows

    def on_device(shared, archs_PxE, batches):
      def path(summed, arch_E):
        measured = measure(shared, arch_E, batches)
        summed = jax.tree.map(jnp.add, summed, measured.summed)
        return summed, (measured.per_path, measured.per_image)

      shapes = jax.eval_shape(measure, shared, archs_PxE[0], batches)
      nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.summed
      )
      summed, (per_path, per_image) = jax.lax.scan(path, nothing, archs_PxE)
      row_place = rows, jax.lax.axis_index(PATHS)
      column_place = columns, jax.lax.axis_index(IMAGES)

      def among_all(leaf, *places):
        """Pads an array with zeros where other devices have theirs."""
        sides, rest = leaf.shape[: len(places)], leaf.shape[len(places) :]
        pairs = [*zip(sides, places, strict=True)]
        full = [side * count for side, (count, _) in pairs]
        corner = [side * at for side, (_, at) in pairs]
        return jax.lax.dynamic_update_slice(
          jnp.zeros((*full, *rest), leaf.dtype),
          leaf,
          (*corner, *[0] * len(rest)),
        )

      vector, unravel = ravel_pytree(
        Measured(
          summed,
          jax.tree.map(lambda leaf: among_all(leaf, row_place), per_path),
          jax.tree.map(
            lambda leaf: among_all(leaf, row_place, column_place), per_image
          ),
        )
      )
      every = unravel(jax.lax.psum(vector, (PATHS, *IMAGES)))
      mean = jax.tree.map(lambda leaf: leaf / columns, every[:2])
      return Measured(mean[0], mean[1], every.per_image)

    return jax.shard_map(
      on_device,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec(PATHS), PartitionSpec(IMAGES)),
      out_specs=PartitionSpec(),
      # Each device keeps its own gradients of what is shared. With the check,
      # JAX would sum them where they arise, inside the branches.
      check_vma=False,
    )


def layout(
  data: int,
  paths: int,
  groups: int,
  described: Sequence[Any] | None = None,
) -> DeviceLayout | None:
  """Lays out data * paths devices; returns None where that is one.

  Args:
    data: number of devices that share the batch of a path.
    paths: number of rows of such devices.
    groups: parts of a batch, each normalised alone; a multiple or a divisor of
      `data`.
    described: devices of another machine, to compile for; None takes those of
      this run.

  Raises ValueError where there are too few devices, or where some processes
  would have none.
  """
  devices = jax.devices() if described is None else described
  wanted = data * paths
  if wanted > len(devices):
    raise ValueError(
      f'mesh.data {data} times mesh.paths {paths} is {wanted} devices; there '
      f'are {len(devices)}.'
    )
  if jax.process_count() > 1 and wanted < len(devices):
    raise ValueError(
      f'mesh.data {data} times mesh.paths {paths} is {wanted} of the '
      f'{len(devices)} devices of {jax.process_count()} processes: use all, '
      f'for instance with mesh.data {len(devices) // paths}.'
    )
  if wanted == 1:
    return None
  apart = math.gcd(data, groups)
  mesh = jax.make_mesh(
    (paths, apart, data // apart),
    (PATHS, GROUPS, SHARDS),
    axis_types=(AxisType.Auto,) * 3,
    devices=list(devices[:wanted]),
  )
  return DeviceLayout(
    mesh, Groups(groups // apart, SHARDS if data > apart else None)
  )
