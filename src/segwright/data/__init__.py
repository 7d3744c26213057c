"""From pictures on disk to batches: sources find, splits divide, packs hold, loaders deliver."""
