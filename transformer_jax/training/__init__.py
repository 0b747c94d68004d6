"""From batches to checkpoints: loss, optimizer, step, evaluation, and the loop around them."""
