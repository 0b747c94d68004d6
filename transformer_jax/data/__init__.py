"""From pairs of strings to batches: sources, tokenizer, packing plan, pipeline."""
