"""Checkpoints, behind which Orbax stands.

Every leaf is saved with its digest, and is what was saved when it is read:
what is not is said and skipped.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxnas import runs
from jaxnas.training import digests
from jaxnas.training.digests import Damaged, Different

T = TypeVar('T')

# Beside a folder of checkpoints, where what is damaged goes.
ASIDE = 'damaged'


class NotSaved(OSError):
  """A checkpoint could not be written."""


def write(folder: Path, tree: Any) -> None:
  """Arrays alone, of no step; there when this returns."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder.absolute(), tree)


def read(folder: Path, like: Any) -> Any:
  """What `write` wrote, in the shapes, dtypes and places of `like`."""
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute(), _abstract(like))


class Checkpoints:
  """Writes in the background; the newest good one is what counts.

  Args:
    folder: made where it is missing, unless it is only read.
    keep: how many of the newest stay.
    always_keep: steps that stay besides.
    facts: of the experiment, JSON; a checkpoint with others is refused.
    on_error: where one cannot be written, 'raise' NotSaved, or 'skip' it with
      a warning, unless it is the last.
    read_only: the folder is another's; nothing in it changes.
  """

  def __init__(
    self,
    folder: Path,
    *,
    keep: int = 2,
    always_keep: Sequence[int] = (),
    facts: Mapping[str, Any] | None = None,
    on_error: str = 'raise',
    read_only: bool = False,
  ):
    self._folder = folder.absolute()
    self._shown = folder
    self._facts = dict(facts or {})
    self._skips = on_error == 'skip'
    self._read_only = read_only
    self._saving: tuple[int, int] | None = None
    """Step and bytes of what is being written."""
    self._lost: NotSaved | None = None
    """Of the last one, where it was skipped."""
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [policies.LatestN(keep), policies.CustomSteps(list(always_keep))]
        ),
        create=not read_only,
        # What a kill has left behind.
        cleanup_tmp_directories=not read_only,
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    try:
      # Raises what a write in the background ran into.
      self.finish()
      if self._lost is not None:
        raise self._lost
    finally:
      self._manager.close()

  def steps(self) -> list[int]:
    """Of the checkpoints there are, good or not, oldest first."""
    return sorted(self._manager.all_steps())

  def save(
    self, state: Any, notes: Mapping[str, Any], *, wait: bool = False
  ) -> None:
    """Under `state.step`; `notes` are JSON. A step that is there stays.

    With `wait` it is there when this returns.

    Raises NotSaved, of this one or of the one before it.
    """
    self.finish()
    step = int(state.step)
    if step not in self.steps():
      size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
      self._saving, self._lost = (step, size), None
      about = {
        'notes': dict(notes),
        'facts': self._facts,
        'leaves': digests.describe(state),
      }
      self._guarded(
        lambda: self._manager.save(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            notes=ocp.args.JsonSave(digests.sealed(about)),
          ),
        )
      )
    if wait:
      self.finish()

  def finish(self) -> None:
    """Waits for what is being written. Raises NotSaved."""
    self._guarded(self._manager.wait_until_finished)

  def _guarded(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      # Whatever a file system, or what writes in the background, raises.
      if self._saving is None:
        raise
      self._clean_up()
      lost = self._not_saved(*self._saving, error)
      self._saving = None
      if not self._skips:
        raise lost from error
      self._lost = lost
      print(f'warning: {lost} Training goes on.')

  def _clean_up(self) -> None:
    """Takes away what is half written, and what the manager holds for whole."""
    assert self._saving is not None
    for part in self._folder.glob(f'{self._saving[0]}.*'):
      shutil.rmtree(part, ignore_errors=True)
    self._manager.reload()

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
    """(state, notes) of the newest good one, None where there is none at all.

    Says what it skips, and moves that aside where the folder may change.

    Raises:
      Damaged: there are some, and none is good.
      Different: the newest good one is of another experiment.
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
    """Makes way for the step to be saved again; says where it is now."""
    aside = self._shown.with_name(ASIDE) / str(step)
    # Of several processes one moves it, when all have read something better.
    if runs.writes():
      shutil.rmtree(aside, ignore_errors=True)
      aside.parent.mkdir(exist_ok=True)
      (self._folder / str(step)).rename(aside)
    self._manager.reload()
    return aside

  def restore(self, step: int, like: T) -> tuple[T, dict[str, Any]]:
    """(state, notes) of a step, in the shapes, dtypes and places of `like`.

    Raises:
      Damaged: it is not what was saved.
      Different: it is of another experiment.
    """
    where = self._shown / str(step)
    try:
      about = digests.opened(self._read(step, notes=ocp.args.JsonRestore()))
      digests.check_facts(self._facts, about['facts'])
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

  def _read(self, step: int, **args: Any) -> Any:
    """One item. Raises Damaged where it cannot be read."""
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
