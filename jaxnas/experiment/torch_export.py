"""A network that is handed over for PyTorch, and as ONNX.

Both come from the PyTorch twin of a space, which computes the same; each is
read back and compared with the run's own logits. ONNX is written by PyTorch's
exporter: it takes all spaces. (jax2onnx 0.17, which would start from the
program of JAX, fails on cells of NAS-Bench-201, and wants an older Orbax than
training does.)

It needs the extras `torch` and `onnx`; nothing of training imports it.
"""

import contextlib
import dataclasses
import importlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num

from jaxnas import data, supernets
from jaxnas.experiment.artifact import ONNX, TORCH_WEIGHTS
from jaxnas.experiment.readme import Form
from jaxnas.runtime import files
from jaxnas.spaces import Space
from jaxnas.supernets import torch_nets, torch_weights


class Twin(NamedTuple):
  """A form that is written, and then read to say logits of images."""

  form: Form
  say: Callable[[Num[np.ndarray, 'B H W C']], Float[np.ndarray, 'B K']]


def check(space: Space) -> None:
  """Raises ValueError where a space has no twin."""
  if type(space) not in torch_nets.NETS:
    raise ValueError(
      f'{space.name} has no network in PyTorch, which --torch and --onnx '
      'write: leave them out.'
    )


def weights(
  folder: Path,
  alone: supernets.StandAlone,
  variables: Any,
  normalise: data.Normalise,
) -> Twin:
  """Writes a state dict, by the names of the twin.

  Args:
    folder: where to.
    alone: from `artifact.network`.
    variables: of it.
    normalise: as in `artifact.write`.
  """
  with files.whole(folder / TORCH_WEIGHTS) as stream:
    torch.save(twin(alone, variables, normalise).net.state_dict(), stream)
  space, arch, arguments = _arguments(alone, normalise)
  read = torch_nets.StandAlone(space, arch, **arguments)
  with files.opened(folder / TORCH_WEIGHTS) as stream:
    read.net.load_state_dict(torch.load(stream, weights_only=True))
  activation = getattr(alone.net, 'activation', None)
  changed = f"""\
import dataclasses
space = dataclasses.replace(space, activation={activation!r})
"""
  form = Form(
    (TORCH_WEIGHTS,),
    'Weights for PyTorch',
    'A state dict of the network in `jaxnas.supernets.torch_nets`, to use or '
    'to train further; `StandAlone` normalises the images itself.',
    f"""
import torch
from jaxnas import spaces
from jaxnas.supernets import torch_nets
space = spaces.get({space.name!r}).on_images(
  {space.image_shape}, {space.classes}
)
{changed if activation else ''}\
network = torch_nets.StandAlone(
  space,
  space.parse({space.format(arch)!r}),
  mean={arguments['mean']},
  std={arguments['std']},
  scale={arguments['scale']},
)
network.net.load_state_dict(torch.load('weights.pt', weights_only=True))
logits = network.eval()(torch.from_numpy(images))
""",
    ("'jaxnas[torch]'",),
  )
  return Twin(form, lambda x: _numpy(read.eval(), x))


def onnx(
  folder: Path,
  alone: supernets.StandAlone,
  variables: Any,
  normalise: data.Normalise,
) -> Twin:
  """Writes an ONNX graph: raw images to float32 logits, in any batch.

  Arguments are those of `weights`.
  """
  # Of the extra, which tests do without.
  onnxruntime = importlib.import_module('onnxruntime')
  net = twin(alone, variables, normalise).eval()
  shape = 2, *alone.space.image_shape
  example = torch.from_numpy(np.zeros(shape, normalise.pixels))
  # The exporter speaks of its steps, and of what its own code has deprecated.
  with (
    warnings.catch_warnings(),
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    warnings.simplefilter('ignore')
    made = torch.onnx.export(
      net,
      (example,),
      input_names=['images'],
      output_names=['logits'],
      dynamo=True,
      dynamic_shapes={'x_BxHxWxC': {0: 'batch'}},
      verbose=False,
    )
  assert made is not None
  made.save(folder / ONNX, external_data=False)
  session = onnxruntime.InferenceSession(folder / ONNX)
  form = Form(
    (ONNX,),
    'ONNX',
    'The network for any runtime of ONNX, images as above.',
    """
import onnxruntime
network = onnxruntime.InferenceSession('network.onnx')
(logits,) = network.run(None, {'images': images})
""",
    ('onnxruntime', 'numpy'),
  )
  return Twin(form, lambda x: session.run(None, {'images': x})[0])


def twin(
  alone: supernets.StandAlone, variables: Any, normalise: data.Normalise
) -> torch_nets.StandAlone:
  """Returns the module of PyTorch that computes what a network does."""
  space, arch_E, arguments = _arguments(alone, normalise)
  net = torch_nets.StandAlone(space, arch_E, **arguments)
  torch_weights.load(net.net, variables['params'], variables['batch_stats'])
  return net


def _arguments(
  alone: supernets.StandAlone, normalise: data.Normalise
) -> tuple[Space, Int[np.ndarray, ' E'], dict[str, Any]]:
  """Returns space, architecture and moments, of which a twin is made."""
  space = alone.space
  if activation := getattr(alone.net, 'activation', None):
    space = dataclasses.replace(space, activation=activation)
  moments = {
    'mean': normalise.mean_C.tolist(),
    'std': normalise.std_C.tolist(),
    'scale': 255 if np.dtype(normalise.pixels) == np.uint8 else 1,
  }
  return space, np.array(alone.arch, np.int32), moments


def _numpy(net: torch.nn.Module, x_BxHxWxC: np.ndarray) -> np.ndarray:
  with torch.no_grad():
    return net(torch.from_numpy(x_BxHxWxC.copy())).numpy()
