"""Saves and restores checkpoints with Orbax, and verifies them.

Every leaf is saved with its digest. A checkpoint that differs from its digests
when it is read is skipped with a warning.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxnas.runtime import files, places, processes, seals
from jaxnas.runtime.errors import Damaged, Different
from jaxnas.training import digests, noise

T = TypeVar('T')


class NotSaved(OSError):
  """A checkpoint could not be written."""


def write(folder: Path, tree: Any) -> None:
  """Writes a pytree of arrays, without a step, and waits until it is there."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder.absolute(), tree)


def read(folder: Path, like: Any) -> Any:
  """Reads what `write` wrote, in the shapes, dtypes and places of `like`."""
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute(), _abstract(like))


class Checkpoints:
  """Writes checkpoints in the background, and finds the newest good one.

  Args:
    folder: made where it is missing, unless it is only read.
    keep: number of the newest checkpoints that stay.
    always_keep: steps that stay besides.
    metadata: describes the experiment, JSON; a checkpoint with other metadata
      is refused.
    on_error: for a checkpoint that can't be written, 'raise' raises NotSaved,
      and 'skip' prints a warning, unless it is the last one.
    read_only: True leaves the folder as it is, for one of another run.
  """

  def __init__(
    self,
    folder: Path,
    *,
    keep: int = 2,
    always_keep: Sequence[int] = (),
    metadata: Mapping[str, Any] | None = None,
    on_error: str = 'raise',
    read_only: bool = False,
  ):
    noise.quiet()
    self._folder = folder.absolute()
    self._shown = folder
    self._metadata = dict(metadata or {})
    self._skips = on_error == 'skip'
    self._read_only = read_only
    self._saving: tuple[int, int] | None = None
    """Step and bytes of the checkpoint that is being written."""
    self._lost: NotSaved | None = None
    """Error of the last checkpoint, where that was skipped."""
    self._half: set[int] = set()
    """Steps of which Orbax may still write parts, though one part failed."""
    if not read_only:
      places.make(self._folder)
      places.check_within(self._folder)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [policies.LatestN(keep), policies.CustomSteps(list(always_keep))]
        ),
        create=not read_only,
        # A killed process may have left some behind.
        cleanup_tmp_directories=not read_only,
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *error: object) -> None:
    try:
      # This raises the errors of a write in the background.
      self.finish()
      if self._lost is not None:
        raise self._lost
    finally:
      # This waits for all that still writes in the background.
      self._manager.close()
      self._remove_half()

  def steps(self) -> list[int]:
    """Returns the steps of all checkpoints, good or not, oldest first."""
    return sorted(self._manager.all_steps())

  def save(
    self, state: Any, notes: Mapping[str, Any], *, wait: bool = False
  ) -> None:
    """Saves a state under `state.step`, with `notes`, which are JSON.

    A step that is there already stays as it is. With `wait` the checkpoint is
    there when this returns.

    Raises NotSaved for this checkpoint or the one before it, and JAX's error
    where another process has ended.
    """
    self.finish()
    places.check(self._folder)
    step = int(state.step)
    if step not in self.steps():
      size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
      self._saving, self._lost = (step, size), None
      about = {
        'notes': dict(notes),
        'facts': self._metadata,
        'leaves': digests.describe(state),
      }
      self._guarded(
        lambda: self._manager.save(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            notes=ocp.args.JsonSave(seals.sealed(about)),
          ),
        )
      )
    if wait:
      self.finish()

  def finish(self) -> None:
    """Waits for the checkpoint that is being written. Raises NotSaved."""
    self._guarded(self._manager.wait_until_finished)

  def _guarded(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      # File systems and the writer in the background raise errors of all kinds.
      # It is another's folder that is not cleaned up.
      places.check(self._folder)
      if self._saving is None:
        raise
      if gone := processes.lost(error):
        # The disk is not to blame, and no later checkpoint can be written.
        self._saving = None
        raise gone from None
      self._clean_up()
      lost = self._not_saved(*self._saving, error)
      self._saving = None
      if not self._skips:
        raise lost from error
      self._lost = lost
      print(f'warning: {lost} Training goes on.')

  def _clean_up(self) -> None:
    """Removes what is half written, and lets the manager forget it."""
    assert self._saving is not None
    self._half.add(self._saving[0])
    self._remove_half()
    self._manager.reload()

  def _remove_half(self) -> None:
    """Removes what failed checkpoints have left; late writers may add to it."""
    for step in self._half:
      for part in self._folder.glob(f'{step}.*'):
        shutil.rmtree(part, ignore_errors=True)

  def _not_saved(self, step: int, size: int, error: Exception) -> NotSaved:
    free = shutil.disk_usage(self._folder).free
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    good = ', '.join(map(str, self.steps())) or 'none'
    return NotSaved(
      f'{self._shown / str(step)} could not be written ({why}): a checkpoint '
      f'takes {_gigabytes(size)}, {_gigabytes(free)} are free on its disk. '
      f'Those of steps {good} stay. Make room and go on with --resume'
      + ('.' if self._skips else ', or set checkpoint.on_error skip.')
    )

  def newest(self, like: T) -> tuple[T, dict[str, Any]] | None:
    """Returns (state, notes) of the newest good checkpoint; None if none is.

    Warns of damaged ones, and moves them aside where the folder may change.

    Raises:
      Damaged: there are checkpoints, and none is good.
      Different: the newest good one belongs to another experiment.
    """
    found, bad = None, {}
    for step in reversed(self.steps()):
      try:
        found = self.restore(step, like)
        break
      except Damaged as error:
        bad[step] = error
    if bad and found is None:
      raise Damaged(
        f'no checkpoint in {self._shown} is good: '
        + '; '.join(map(str, bad.values()))
        + '. Bring one back, or start anew in another --workdir.'
      )
    for step, error in bad.items():
      where = '' if self._read_only else f', moved to {self._aside(step)}'
      print(f'warning: skipped a checkpoint{where}: {error}')
    return found

  def _aside(self, step: int) -> Path:
    """Moves a damaged checkpoint away, so that its step can be saved again."""
    aside = self._shown.with_name(places.ASIDE) / str(step)
    # One of several processes moves it, when all have read something better.
    if files.writes():
      places.make(aside.parent)
      places.remove(aside)
      (self._folder / str(step)).rename(aside)
    self._manager.reload()
    return aside

  def restore(self, step: int, like: T) -> tuple[T, dict[str, Any]]:
    """Returns (state, notes) of a step, in shapes, dtypes, places of `like`.

    Raises:
      Damaged: the checkpoint is not what was saved.
      Different: it belongs to another experiment.
    """
    where = self._shown / str(step)
    try:
      about = self._notes(step)
      digests.check_metadata(self._metadata, about['facts'])
      digests.check_like(about['leaves'], like)
      state = self._read(step, state=ocp.args.StandardRestore(_abstract(like)))
      digests.check(about['leaves'], state)
    except Damaged as error:
      raise Damaged(f'{where} is damaged ({error})') from error
    except Different as error:
      raise Different(
        f'{where} {error}: go on with what saved it, or choose another '
        '--workdir.'
      ) from error
    return state, about['notes']

  def digest(self, step: int) -> str | None:
    """Returns the digest of a step's state, by its notes; None without one."""
    if step not in self.steps():
      return None
    try:
      return seals.seal(self._notes(step)['leaves'])
    except Damaged:
      return None

  def _notes(self, step: int) -> dict[str, Any]:
    """Reads what goes with a state. Raises Damaged where it changed."""
    places.check_readable(self._folder / str(step))
    try:
      return seals.opened(self._read(step, notes=ocp.args.JsonRestore()))
    except ValueError as error:
      raise Damaged(str(error).replace('it ', 'its notes: it ', 1)) from error

  def _read(self, step: int, **args: Any) -> Any:
    """Reads one item. Raises Damaged where it can't."""
    (name,) = args
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**args))[name]
    except Exception as error:
      # Orbax, TensorStore and JSON each have errors of their own.
      why = (str(error).splitlines() or [''])[0][:200]
      raise Damaged(f'{name}: {type(error).__name__} {why}') from error


def _abstract(like: Any) -> Any:
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, like)


def _gigabytes(size: int) -> str:
  return f'{size / 1e9:.3g} GB'
