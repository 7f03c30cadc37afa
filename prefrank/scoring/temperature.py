"""The temperature that a folder keeps in its prefrank.json, and which scores it is for."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefrank.checks import is_finite
from prefrank.errors import BadInput, short
from prefrank.model.hub import resolve_model
from prefrank.model.record import ModelRecord, read_record, write_record


def check_temperature(value: object) -> None:
    """Raise BadInput for a temperature that is no finite number above 0."""
    if not is_finite(value) or value <= 0:
        raise BadInput(f"temperature is {short(value)}; wanted a finite number above 0")


def is_for(calibration: Mapping[str, Any], fingerprint: str, *, pre_rendered: bool, empty_score: float | None) -> bool:
    """Whether a stored calibration was fitted on the scores of a model that is loaded so."""
    fitted = (calibration.get("model"), calibration.get("pre_rendered", False), calibration.get("empty_score"))
    return fitted == (fingerprint, pre_rendered, empty_score)


def check_calibratable(name: str | Path) -> tuple[Path, ModelRecord]:
    """The folder that a calibration is stored in, and its record.

    Raises:
        BadInput: not a folder with prefrank.json here, or a checkpoint to resume training from, whose files are sealed.
        NotFound, BadModel: as `RewardModel.load`.
    """
    folder = resolve_model(str(name))
    record = read_record(folder) if os.path.isdir(os.path.expanduser(name)) else None
    if record is None:
        raise BadInput(
            f"{name} is not a folder with prefrank.json, where a calibration is kept; save a copy first, with"
            f" RewardModel.load({str(name)!r}).save(FOLDER), and calibrate that"
        )
    if (folder / "state").is_dir():
        raise BadInput(
            f"{folder} is a checkpoint to resume training from, which must stay as it is; calibrate the run's best"
            " checkpoint, or a copy made with RewardModel.load(...).save(FOLDER)"
        )
    return folder, record


def store_calibration(name: str | Path, calibration: dict[str, Any]) -> Path:
    """Write a calibration into the prefrank.json of a folder, replacing one that was there; all else stays.

    Args:
        calibration: plain values, with at least `temperature` and `model`, the fingerprint it is for.

    Raises:
        BadInput, NotFound, BadModel: as `check_calibratable`; or a temperature that is not above 0.
        CannotWrite: prefrank.json cannot be written; what was there stays.
    """
    folder, record = check_calibratable(name)
    check_temperature(calibration.get("temperature"))
    write_record(folder, replace(record, calibration=calibration))
    return folder
