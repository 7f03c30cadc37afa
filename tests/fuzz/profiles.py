"""How many examples: `short` runs with the suite, the same ones every time; `long` is for `make fuzz`."""

import os

from hypothesis import HealthCheck, Phase, settings

_PLAIN = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.register_profile("short", _PLAIN, max_examples=12, derandomize=True)
settings.register_profile("long", _PLAIN, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")))

fuzz = settings.get_profile(os.environ.get("FUZZ_PROFILE", "short"))
"""Stands above every test here."""
