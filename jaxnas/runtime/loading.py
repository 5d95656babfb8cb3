"""The seconds in which a command imports its modules, before it says anything.

It says that it has begun, and Ctrl-C ends it in one line: libraries may turn
Python's KeyboardInterrupt into an error of their own, or lose it. Nothing is
begun yet that could be lost.
"""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType

# The exit code after Ctrl-C, as of a shell.
INTERRUPTED = 130

# A command that has said nothing for so long says that it loads.
SILENT_S = 1.0
SAYS = 'loading libraries ...\n'

_silent: list[threading.Timer] = []


def is_command() -> bool:
  """Returns True while a process imports what `jaxnas` or `-m jaxnas.` runs.

  Workers of a command are none, although they have its words.
  """
  if multiprocessing.parent_process() is not None:
    return False
  name = os.path.basename(sys.argv[0]) if sys.argv else ''
  if name != '-m':
    return name == 'jaxnas'
  # Python says so as long as it looks for the module.
  words = sys.orig_argv
  module = words[words.index('-m') + 1] if '-m' in words[:-1] else ''
  return module.partition('.')[0] == 'jaxnas'


def watch() -> None:
  """Begins: Ctrl-C ends this process at once, and silence is broken."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
  timer = threading.Timer(SILENT_S, os.write, (2, SAYS.encode()))
  timer.daemon = True
  timer.start()
  _silent.append(timer)


def said() -> None:
  """Notes that the command has said something."""
  while _silent:
    _silent.pop().cancel()


def over() -> None:
  """Lets Python raise again on Ctrl-C."""
  if signal.getsignal(signal.SIGINT) is end:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(number: int, frame: FrameType | None) -> None:
  """Says that the command has stopped, and ends the process."""
  del number, frame
  # A stream may be in the middle of a line of its own.
  os.write(2, b'stopped\n')
  os._exit(INTERRUPTED)
