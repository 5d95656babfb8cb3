"""Keeps what libraries say of errors that become one line of ours."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

ORBAX = Path(ocp.__file__).parent


def quiet() -> None:
  """Silences tracebacks of checkpoints that can't be written.

  Orbax raises the errors that it logs. TensorStore's threads go on with other
  files of the checkpoint, and find that nobody waits for them any more; asyncio
  logs their errors.
  """
  logging.getLogger('absl').addFilter(_not_raised)
  logging.getLogger('asyncio').addFilter(_waited_for)
  warnings.filterwarnings(
    'ignore', r"coroutine 'async_serialize.* was never awaited", RuntimeWarning
  )
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)


def _not_raised(record: logging.LogRecord) -> bool:
  reports = record.exc_info or record.levelno >= logging.ERROR
  return not (reports and ORBAX in Path(record.pathname).parents)


def _waited_for(record: logging.LogRecord) -> bool:
  text = record.getMessage()
  # Their coroutines are Orbax's, or they name a folder that it has made.
  return not ('never retrieved' in text and 'orbax' in text)


class _Hook:
  """Passes on all but the errors of threads that nobody waits for."""

  def __init__(self, before: Any):
    self._before = before

  def __call__(self, unraisable: Any) -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
      self._before(unraisable)
