"""What people read: the report, the leaderboard and the model card. Needs the packages of the `evaluate` extra."""
