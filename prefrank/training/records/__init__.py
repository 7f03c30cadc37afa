"""What a run writes to disk and reports to its caller: checkpoints, log, curve, events, pictures."""
