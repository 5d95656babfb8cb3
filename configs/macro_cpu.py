"""NAS-Bench-Macro on CIFAR-10, on a schedule for a CPU core.

It has the space, data and method of macro.py with 6 warm-up epochs and 24 more
instead of 20 and 50, and compares gradients of 64 images. It ranks all 6,561
architectures on 1,000 validation images at the end, and 100 of them, drawn with
a fixed seed, every five epochs.

Command: python -m jaxnas.train --config macro_cpu.py --data.dir DIR
  --table FILE --debias.baseline
Hardware and time: not yet measured; 9 GB of memory for the gradients
Result: not yet measured
"""

from jaxnas.config import Config, Data, Debias, Density, Optimizer, Ranking


def get_config() -> Config:
  return Config(
    space='nas_bench_macro',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=6,
    epochs=24,
    debias=Debias(effective_fraction=0.5),
    # This keeps all gradients, 9 GB; with the default of 2 GB the density takes
    # twice as long.
    density=Density(batch_size=64, memory_gb=10.0),
    optimizer=Optimizer(
      peak_lr=0.03, weight_decay=5e-4, clip_norm=5.0, lr_warmup_steps=200
    ),
    ranking=Ranking(images=1000, every_epochs=5),
  )
