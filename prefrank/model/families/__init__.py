"""The table of model families: which models run here, and how."""
