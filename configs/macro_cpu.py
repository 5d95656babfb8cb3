"""NAS-Bench-Macro on CIFAR-10, on a schedule for two CPU cores.

The space, data and method of macro.py with fewer epochs, smaller batches and
a smaller learning rate; 300 architectures drawn with a fixed seed are ranked
on 2,000 validation images.

Command: python -m jaxnas.train --config macro_cpu.py --data.dir DIR
  --table FILE --debias.baseline
Hardware and time: one core of an AMD EPYC, often shared, 69 minutes for both
  runs; 95 images/s in training. 9 GB of memory for the gradients
Result: Kendall 0.383 [0.32, 0.45] debiased, 0.482 [0.42, 0.54] undebiased, one
  seed, 300 architectures; layers alone have 0.702. After one epoch of warm-up
  the supernet has learnt little (loss 1.6 at the end), and debiasing is worse
"""

from jaxnas.config import (
  Config,
  Data,
  Debias,
  Density,
  Optimizer,
  Ranking,
)


def get_config() -> Config:
  return Config(
    space='nas_bench_macro',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=1,
    epochs=3,
    debias=Debias(effective_fraction=0.5),
    # Keeps all gradients, 9 GB; at the default of 2 GB the density takes twice
    # as long.
    density=Density(batch_size=64, memory_gb=10.0),
    # At the paper's 0.1 the loss of so short a run is close to divergence.
    optimizer=Optimizer(
      peak_lr=0.02, weight_decay=5e-4, clip_norm=5.0, lr_warmup_steps=200
    ),
    ranking=Ranking(images=2000, archs=300),
  )
