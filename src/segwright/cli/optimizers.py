"""`segwright optimizers`: what may move the weights."""

from __future__ import annotations

from segwright.cli.text import examples, say, show_table

EXAMPLES = examples(
    "segwright optimizers",
    "segwright train photos/ -o optimizer.name=sgd -o optimizer.lr=0.05 -o optimizer.nesterov=true",
)


def optimizers() -> None:
    """List the optimisers."""
    from segwright.optim import OPTIMIZERS

    rows = [[name, entry.line, entry.paper] for name, entry in OPTIMIZERS.items()]
    show_table("Optimisers", ["name", "what", "paper"], rows)
    say("Also: optimizer.weight_decay, l2_convolutions, momentum, encoder_lr_factor, layer_decay, gradient_clip.")
