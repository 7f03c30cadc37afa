"""The carbon of a training run: measured, else as stated, else estimated by a published rule, which the card names."""

from collections.abc import Mapping

from prefrank.reports.card.training_record import Spent, TrainingRecord
from prefrank.reports.markdown import plain, sentence

CORE_WATTS, MEMORY_WATTS_PER_GB, OVERHEAD, GRAMS_PER_KWH = 12.0, 0.3725, 1.67, 475.0
"""Green Algorithms (Lannelongue et al. 2021, eq. 1 and the tool's defaults v2.2): an unknown core, memory, the mean
overhead of data centers, the world's mean electricity."""


def emissions(training: TrainingRecord | None, facts: Mapping[str, str]) -> str | None:
    """A sentence in Markdown; None where the carbon is neither measured nor stated nor can be estimated."""
    spent = training.spent if training else None
    if spent and spent.co2e_kg is not None and spent.energy_kwh is not None:
        return f"{_weight(spent.co2e_kg)} CO2eq from {spent.energy_kwh:.3g} kWh, by codecarbon's reading"
    if "co2" in facts:
        return sentence(facts["co2"])
    if training is None or not training.device.startswith("cpu"):
        return None  # what a GPU draws cannot be told from the record
    kwh = _estimated_kwh(training.spent) * training.processes
    why = training.spent.energy_missing or "it was not recorded"
    return (
        f"{_weight(kwh * GRAMS_PER_KWH / 1000)} CO2eq from {kwh:.2g} kWh: estimated, not measured ({plain(why)}), by"
        f" the rule of Green Algorithms (Lannelongue et al. 2021): {CORE_WATTS:g} W for each busy core over the CPU"
        f" time, {MEMORY_WATTS_PER_GB} W for each GB of peak memory, times {OVERHEAD} for the data center and"
        f" {GRAMS_PER_KWH:g} g/kWh, the world's mean"
    )


def _estimated_kwh(spent: Spent) -> float:
    memory = spent.peak_memory_bytes / 1e9 * MEMORY_WATTS_PER_GB * spent.wall_s
    return (spent.cpu_s * CORE_WATTS + memory) / 3.6e6 * OVERHEAD


def _weight(kilograms: float) -> str:
    if kilograms >= 1:
        return f"{kilograms:.3g} kg"
    grams = kilograms * 1000
    return f"{grams:.3g} g" if grams >= 0.1 else f"{grams * 1000:.2g} mg"
