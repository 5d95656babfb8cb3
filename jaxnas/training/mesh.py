"""Devices that train together: which architectures and images each takes.

A row of devices a path's share, each with its part of the batch. Devices of
one row run the same layers at the same time; those of different rows do not,
and so exchange nothing before all of them are done: on CPU, collectives inside
branches that differ silently mix wrong data.
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

from jaxnas import spread
from jaxnas.data import Placing
from jaxnas.nn.layers import Groups

# Rows; groups of images in a row that are normalised alone; devices that share
# such a group.
PATHS, GROUPS, SHARDS = 'paths', 'groups', 'shards'
IMAGES = (GROUPS, SHARDS)


class Measured(NamedTuple):
  """Of one path, pytrees of float arrays; of all of them with an axis P."""

  summed: Any
  """Means over images, which are summed over paths."""
  of_path: Any = ()
  """Means over images."""
  of_image: Any = ()
  """With images as the leading axis, the one behind P."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """A mesh, and what each of its devices has."""

  mesh: Mesh
  groups: Groups
  """Of the images on a device."""

  @property
  def whole(self) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def placing(self) -> Placing:
    """Of the inputs of training."""
    return Placing(self.everywhere, self.within, self.share, self.batch)

  def everywhere(self, tree: Any) -> Any:
    """A pytree of arrays, whole on every device."""
    return spread.put(tree, self.whole)

  def within(self, tree: Any) -> Any:
    """The same in a jitted program, made on every device."""
    return jax.lax.with_sharding_constraint(tree, self.whole)

  def share(self, size: int) -> range:
    """Rows of a batch that devices of this process take."""
    parts = self._rows.addressable_devices_indices_map((size,)).values()
    ranges = [index[0].indices(size) for index in parts if index is not None]
    return range(
      min(start for start, _, _ in ranges), max(stop for _, stop, _ in ranges)
    )

  def batch(self, rows: Any, size: int) -> Any:
    """A batch on the devices, from this process's share of it."""
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
    """(shared, archs_PxE, batches) -> what `measure` finds, on every device.

    Each device takes its share of the paths, one after the other, on its share
    of the images, and one all-reduce in the end exchanges everything.

    Args:
      measure: (shared, arch_E, a device's part of the batches) -> of one path.
        P is a multiple of the rows.
    """
    rows = self.mesh.shape[PATHS]
    columns = self.mesh.size // rows

    def on_device(shared, archs_PxE, batches):
      def path(summed, arch_E):
        found = measure(shared, arch_E, batches)
        summed = jax.tree.map(jnp.add, summed, found.summed)
        return summed, (found.of_path, found.of_image)

      shapes = jax.eval_shape(measure, shared, archs_PxE[0], batches)
      nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.summed
      )
      summed, (of_path, of_image) = jax.lax.scan(path, nothing, archs_PxE)
      of_row = rows, jax.lax.axis_index(PATHS)
      of_column = columns, jax.lax.axis_index(IMAGES)

      def among_all(leaf, *places):
        """In its place along leading axes, with zeros for other devices."""
        sides, rest = leaf.shape[: len(places)], leaf.shape[len(places) :]
        pairs = [*zip(sides, places, strict=True)]
        whole = [side * count for side, (count, _) in pairs]
        corner = [side * at for side, (_, at) in pairs]
        return jax.lax.dynamic_update_slice(
          jnp.zeros((*whole, *rest), leaf.dtype),
          leaf,
          (*corner, *[0] * len(rest)),
        )

      vector, unravel = ravel_pytree(
        Measured(
          summed,
          jax.tree.map(lambda leaf: among_all(leaf, of_row), of_path),
          jax.tree.map(
            lambda leaf: among_all(leaf, of_row, of_column), of_image
          ),
        )
      )
      every = unravel(jax.lax.psum(vector, (PATHS, *IMAGES)))
      mean = jax.tree.map(lambda leaf: leaf / columns, every[:2])
      return Measured(mean[0], mean[1], every.of_image)

    return jax.shard_map(
      on_device,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec(PATHS), PartitionSpec(IMAGES)),
      out_specs=PartitionSpec(),
      # Gradients of what is shared stay those of one device: with the check,
      # JAX would sum them where they arise, inside the branches.
      check_vma=False,
    )


def layout(
  data: int,
  paths: int,
  groups: int,
  described: Sequence[Any] | None = None,
) -> Layout | None:
  """Of so many devices; None where that is one.

  Args:
    data: devices that share the batch of a path.
    paths: rows of them.
    groups: of a batch, normalised each alone; a multiple of `data` or a
      divisor.
    described: devices of another machine, to compile for; None: this run's.

  Raises ValueError where there are not so many devices, or where processes
  would be left without any.
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
  return Layout(mesh, Groups(groups // apart, SHARDS if data > apart else None))
