"""The page that goes with a network that is handed over.

Its code is what the tests run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxnas.runtime import words


class Form(NamedTuple):
  """One more form of a network, beside the program of JAX."""

  files: tuple[str, ...]
  title: str
  text: str
  """It says what the form is, in a paragraph."""
  code: str
  """From `images`, as the page makes them, to `logits`."""
  requirements: tuple[str, ...]


# The program of JAX, which is always there.
PROGRAM = """
from jax import export
network = export.deserialize(bytearray(open('network.bin', 'rb').read()))
logits = network.call(images)
"""


def text(metadata: Mapping[str, Any], forms: Sequence[Form] = ()) -> str:
  """Returns the page, in Markdown.

  Args:
    metadata: what network.json holds.
    forms: what stands beside the program of JAX.
  """
  height, width, channels = metadata['image_shape']
  code = (
    'import numpy as np\n'
    f'images = np.zeros((1, {height}, {width}, {channels}), '
    f'np.{metadata["pixels"]})  # yours'
  )
  tested = words.counted(
    metadata['accuracy_images'], f'{metadata["accuracy_split"]} image'
  )
  pages = [
    f'# {metadata["arch"]} of {metadata["space"]}',
    f'A network that tells {metadata["classes"]} classes of images of '
    f'{height}x{width} pixels apart: {metadata["params"]:,} parameters, '
    f'{metadata["macs"]:,} multiply-adds an image. {weights(metadata)}',
    f'It has {metadata["accuracy"]:.2%} of {tested} of '
    f'`{metadata["data"]}` right.',
    '## Use it',
    'In this folder, after `pip install -r requirements.txt`:',
    _python(f'{code}{PROGRAM}print(logits.argmax(-1))'),
    '## What goes in, and what comes out',
    _formats(metadata),
    '## What is here',
    _files(forms),
  ]
  for form in forms:
    installed = ' '.join(form.requirements)
    pages += [
      f'## {form.title}',
      f'{form.text} It needs `pip install {installed}`.',
      _python(f'{code}{form.code}print(logits.argmax(-1))'),
    ]
  return '\n\n'.join(pages) + '\n'


def requirements(versions: Mapping[str, str]) -> str:
  """Returns what the program of JAX needs, as pip reads it.

  Args:
    versions: of the packages that wrote it; a later JAX reads it.
  """
  return f'jax>={versions["jax"]}\nflatbuffers>=24.3\nnumpy>=2.0\n'


def weights(metadata: Mapping[str, Any]) -> str:
  """Says where the weights come from, in a sentence."""
  origin = metadata['weights']
  if origin['from'] == 'retrained':
    averaged = ', a moving average' if origin['moving_average'] else ''
    return (
      f'Its weights were trained from scratch, alone (seed {origin["seed"]}'
      f'{averaged}).'
    )
  return (
    'Its weights are those that it shared in the supernet, with batch '
    f'normalisation measured on {origin["calibration_images"]:,} training '
    'images; trained from scratch they are often better.'
  )


def _python(code: str) -> str:
  return f'```python\n{code.strip()}\n```'


def _formats(metadata: Mapping[str, Any]) -> str:
  height, width, channels = metadata['image_shape']
  order = {1: 'one, grey', 3: 'red, green, blue, in this order, and last'}
  of_bytes = metadata['pixels'] == 'uint8'
  pixels = 'pixels 0 to 255' if of_bytes else 'pixels as those of training were'
  scaled = 'pixels / 255' if of_bytes else 'pixels'
  mean, std = (
    ', '.join(f'{value:.4g}' for value in metadata[name])
    for name in ('mean', 'std')
  )
  return '\n'.join(
    (
      '| | |',
      '| --- | --- |',
      f'| images | {metadata["pixels"]} of shape (N, {height}, {width}, '
      f'{channels}), {pixels}, any number N of them |',
      f'| channels | {order.get(channels, f"{channels}, last, as in training")}'
      ' |',
      f'| normalisation | done inside: ({scaled} - mean) / deviation, mean '
      f'{mean}, deviation {std} |',
      f'| logits | float32 of shape (N, {metadata["classes"]}); their softmax '
      'are probabilities |',
      f'| classes | 0 to {metadata["classes"] - 1}, as the labels of '
      f'`{metadata["data"]}` count them |',
    )
  )


def _files(forms: Sequence[Form]) -> str:
  lines = [
    '| file | what it is |',
    '| --- | --- |',
    '| `network.bin` | the network as a program of JAX, weights inside, for '
    'CPU, CUDA and TPU; it needs neither jaxnas nor Flax |',
    '| `network.json` | what it is: architecture, costs, origin, versions |',
    '| `params/` | the weights as an Orbax checkpoint, which '
    '`jaxnas.experiment.artifact.load` reads, to train further |',
    '| `requirements.txt` | what `network.bin` needs |',
  ]
  for form in forms:
    names = ', '.join(f'`{file}`' for file in form.files)
    lines.append(f'| {names} | {form.title} |')
  return '\n'.join(lines)
