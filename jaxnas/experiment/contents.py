"""The images that an experiment reads, and the run that they belong to."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnas import data, spaces
from jaxnas.config import Config, run_folder
from jaxnas.data import fingerprint
from jaxnas.experiment import datasets
from jaxnas.runtime import errors, files, words

# The file of a run that says what images it was made of.
FILE = 'images.json'


@dataclasses.dataclass(frozen=True)
class Contents:
  """The images of an experiment: how many for what, and which."""

  train: int
  validation: int
  test: int
  image_shape: tuple[int, ...]
  classes: int
  pixels: str
  """Says what was taken for pixels; '' for bytes."""
  ignored: str
  """Says what was ignored beside them and why; '' where nothing was."""
  repeated: Mapping[str, int]
  """Images of other parts that are training images too, by the part."""
  fingerprint: dict[str, Any]

  def __str__(self) -> str:
    """Writes one line on what was loaded."""
    shape = 'x'.join(map(str, self.image_shape))
    return (
      f'{self.train:,} train, {self.validation:,} validation, '
      f'{self.test:,} test images of {shape} in {self.classes} classes'
      + (f', {self.pixels}' if self.pixels else '')
      + (f', {self.ignored}' if self.ignored else '')
      + self._repeated()
    )

  def _repeated(self) -> str:
    counts = [
      f'{self.repeated[part]:,} of '
      + words.counted(getattr(self, part), f'{part} image')
      for part in self.repeated
      if self.repeated[part]
    ]
    if not counts:
      return ''
    return f'; trained on too: {" and ".join(counts)}, which are the same'


def of(config: Config, loaded: data.DataSet) -> Contents:
  """Describes the data set of a config, which has been loaded."""
  train_T, validation_V = datasets.divide(
    loaded, config.data, config.split_seed
  )
  return Contents(
    len(train_T),
    len(validation_V),
    len(loaded.y_test),
    loaded.image_shape,
    loaded.classes,
    '' if isinstance(loaded, data.Photos) else loaded.pixels,
    str(loaded.ignored) if loaded.ignored else '',
    fingerprint.repeated(loaded, train_T, validation_V),
    fingerprint.of(loaded),
  )


def check(run: Path, contents: Contents) -> None:
  """Raises Different where a run was made of other images.

  It warns of a run that does not say which.
  """
  file = run / FILE
  if not file.exists():
    if (run / 'config.json').exists():
      print(
        f'warning: {run} does not say which images it was made of (no {FILE}); '
        'these may be others'
      )
    return
  if differs := fingerprint.difference(contents.fingerprint, kept(run)):
    raise errors.Different(
      f'{run} was made of other images than these: {differs}; give the '
      '--data.dir of its own, or train anew in another --workdir.'
    )


def kept(run: Path) -> dict[str, Any]:
  """Reads the fingerprint of the images that a run was made of.

  Raises FileNotFoundError or Damaged.
  """
  kinds = {'image_shape': list, 'classes': int, 'train': dict, 'test': dict}
  return files.read_json(run / FILE, kinds)


def space_of(run: Path, config: Config) -> spaces.Space:
  """Returns the space of a run, for the images that it was made of.

  Raises FileNotFoundError or Damaged.
  """
  images = kept(run)
  return spaces.get(config.space).on_images(
    tuple(images['image_shape']), images['classes']
  )


def open_run(
  workdir: Path | None,
  config: Config,
  contents: Contents,
  *,
  resume: bool,
  name: str = 'run',
  **options: Any,
) -> Path:
  """Opens a run directory as `run_folder.open_run`, for these images.

  Args:
    workdir: the directory; None: a new one under runs/.
    config: the experiment.
    contents: its images.
    resume: it may hold this experiment already.
    name: of a new one, as a rule the config file's.
    options: further ones of `run_folder.open_run`.

  Returns the directory.

  Raises as that does, and Different, with nothing changed, where the run to
  resume was made of other images.
  """
  workdir = workdir or run_folder.claim(name)
  if resume and (workdir / FILE).exists():
    check(workdir, contents)
  run_folder.open_run(workdir, config, resume=resume, **options)
  keep(workdir, contents)
  return workdir


def keep(run: Path, contents: Contents) -> None:
  """Writes which images a run is made of. Raises as `check`."""
  if (run / FILE).exists():
    check(run, contents)
  files.write_json(run / FILE, contents.fingerprint)
