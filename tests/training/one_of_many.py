"""A process of a group, started as `torchrun` would; also the single process to compare with.

Run as a script with the path to write to; process 0 writes what `train_all` returned.
"""

import sys

import torch
from small_training import CPU, noise_pool, small, trainer

from zerolabel.training import distributed
from zerolabel.training.sampling import take

# koleo is left out: it spreads the images of one process, as published.
SETTINGS = {
    "dino": {"objective": "dino", "dense": "match"},
    "ibot": {"objective": "dino", "dense": "ibot"},
    "infonce": {"objective": "infonce", "dense": "match", "symmetric": False, "rows": "both"},
    "coding-rate": {"objective": "coding-rate", "dense": "ibot", "rows": "mean"},
}
STEPS = 3


def train_all():
    """Train with each of the settings: losses of every step, and the student's weights."""
    found = {}
    for name, settings in SETTINGS.items():
        made = trainer(small(**settings))
        made.total = STEPS
        before = made.student.backbone.norm.weight.detach().clone()
        for group in made.optimiser.param_groups:
            group["eps"] = 1e-4  # else a gradient that is nothing but rounding makes a full step
        losses = []
        for turn in range(STEPS):
            out = made.train_step(take(noise_pool(), turn, made.config))
            parts = torch.stack([out[part].detach() for part in ("loss", "image", "dense")])
            losses.append(distributed.total(parts) / distributed.world())
        weights = {k: v.detach().clone() for k, v in made.student.named_parameters()}
        centres = [centre.value for centre in made.objective.centres]
        found[name] = {
            "losses": torch.stack(losses),
            "weights": weights,
            "moved": float((made.student.backbone.norm.weight.detach() - before).abs().max()),
            "centres": centres,
        }
    return found


def main():
    torch.set_num_threads(1)
    distributed.start(CPU)
    assert distributed.world() == 2
    found = train_all()
    agreed = distributed.agree(distributed.rank() + 0.25)
    if distributed.rank() == 0:
        torch.save({**found, "agreed": agreed}, sys.argv[1])
    else:
        assert agreed == 0.25
    distributed.stop()
    assert distributed.world() == 1


if __name__ == "__main__":
    main()
