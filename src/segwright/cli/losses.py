"""`segwright losses`: what a loss formula may name."""

from __future__ import annotations

from segwright.cli.text import examples, say, show_table

EXAMPLES = examples(
    "segwright losses",
    "segwright train photos/ -o loss.formula='dice + 2*ce'",
    "segwright train photos/ -o loss.formula='tversky(alpha=0.3, beta=0.7) + ramp(0, 0.01)*boundary'",
)


def losses() -> None:
    """List the losses, and what each may be told in a formula."""
    from segwright.losses import LOSSES
    from segwright.losses.formula import arguments_of

    rows = []
    for name, entry in LOSSES.items():
        told = ", ".join(f"{key}={value}" for key, value in arguments_of(entry.of).items())
        rows.append([name, entry.family, told, entry.line, entry.paper])
    show_table("Losses", ["name", "looks at", "arguments", "what", "paper"], rows)
    say("Sums: 'dice + 2*ce'. Arguments: 'focal(gamma=1.5)'. A factor that moves: 'dice + ramp(0, 0.01)*boundary'.")
    say("classes.ignore_in_loss applies to all. loss.class_weights count in ce, focal and boundary_ce alone,")
    say("unless loss.weighted_in is all.")
