"""From a recipe to what each step trains on: comparisons read, cleaned, split, encoded, mixed and put in order."""
