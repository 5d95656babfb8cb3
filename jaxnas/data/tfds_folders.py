"""Finds the data sets that tensorflow-datasets (tfds) has prepared in a folder.

tfds lays them out as FOLDER/NAME/VERSION/dataset_info.json; a user may name any
of the three folders.
"""

import json
import re
from pathlib import Path
from typing import Any

INFO = 'dataset_info.json'

# The only file format that is read without TensorFlow.
READ = 'array_record'

# The format of a data set that says none.
UNSAID = 'tfrecord'

# In the name of what tfds has not finished, such as 3.0.2.incompleteX1Y2.
_UNFINISHED = '.incomplete'


def find(folder: Path, name: str | None = None) -> Path | None:
  """Returns the newest version of a data set, which is `folder` or below it.

  Versions in a file format that is read go before others, which `check_format`
  refuses.

  Args:
    folder: a version of the data set, its parent, or the one above that.
    name: the name that tfds gives the data set; None: any.

  Raises ValueError where `folder` has several data sets.
  """
  for pattern in ('.', '*', '*/*'):
    infos = {
      file.parent: _info(file)
      for file in sorted(folder.glob(f'{pattern}/{INFO}'))
      if _UNFINISHED not in file.parent.name
    }
    found = [
      at
      for at, info in infos.items()
      if name in (None, info.get('name', at.parent.name))
    ]
    if found:
      break
  else:
    return None
  if len(parents := sorted({at.parent for at in found})) > 1:
    raise ValueError(
      f'{parents[0].parent} has several data sets: give the folder of one of '
      f'{", ".join(parent.name for parent in parents)}.'
    )
  return max(
    found, key=lambda at: (_format(infos[at]) == READ, _version(at.name))
  )


def check_format(folder: Path) -> None:
  """Raises ValueError where only TensorFlow reads a version of a data set.

  The message says how to convert it. It also raises ValueError where the file
  that says the format is damaged.
  """
  file = folder / INFO
  try:
    written = json.loads(file.read_bytes()).get('fileFormat', UNSAID)
  except (ValueError, AttributeError) as error:
    raise ValueError(
      f'{file} is no {INFO} ({error}): prepare the data set anew.'
    ) from error
  if written != READ:
    raise ValueError(
      f'{folder} holds {written} files, which only TensorFlow reads; tfds '
      f'convert_format --dataset_version_dir={folder} --out_dir=NEW '
      f'--out_file_format={READ} makes what jaxnas reads from --data.dir NEW.'
    )


def _info(file: Path) -> dict[str, Any]:
  """Returns what a file says; nothing where it is damaged."""
  try:
    info = json.loads(file.read_bytes())
  except (OSError, ValueError):
    return {}
  return info if isinstance(info, dict) else {}


def _version(name: str) -> list[int]:
  """Returns the numbers of a version, which order as versions do."""
  return [int(part) for part in re.findall(r'\d+', name)]


def _format(info: dict[str, Any]) -> str:
  return info.get('fileFormat', UNSAID)
