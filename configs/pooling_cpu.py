"""Pooling on CIFAR-10, on a schedule for a CPU core.

It has the space, data and method of pooling.py with 10 warm-up epochs and 40
more instead of 50 and 250, in batches of 64 images. It ranks all 36
architectures on 2,000 validation images every five epochs, so that a run is a
curve.

Command: python -m jaxnas.train --config pooling_cpu.py --data.dir DIR
Hardware and time: one core of an AMD EPYC with AVX-512, 570 images/s in
  training where nothing else runs, 37 minutes for 50 epochs at that rate
Result: uniform, mean accuracy of the 36 architectures 0.789, Kendall 0.455
  [0.21, 0.63]; debiased to a fraction of 0.7, 0.802 and Kendall 0.235
  [0.04, 0.41]. One seed each, of warm-ups that differ, so that nothing is
  decided; intervals over architectures. Counting multiply-adds gives 0.498
"""

from jaxnas.config import Config, Data, Debias, Optimizer, Ranking


def get_config() -> Config:
  return Config(
    space='pooling',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=10,
    epochs=40,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(
      peak_lr=0.1, floor_lr=0.001, weight_decay=1e-3, lr_warmup_steps=100
    ),
    ranking=Ranking(images=2000, every_epochs=5, sample=36),
  )
