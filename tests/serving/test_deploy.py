"""The files of deploy/ name options, settings and paths that there are, and agree with each other."""

import configparser
import json
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from prefrank.cli.commands import app
from prefrank.cli.options import ScoringOptions
from prefrank.serving.configure import PREFIX, configure
from prefrank.serving.settings import ServeSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir())
LOADING = [option.name for option in fields(ScoringOptions)]
PLAIN = {part.name: None if part.default is MISSING else part.default for part in fields(ServeSettings)}


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(read("prefrank-serve.service"))
    return parser


def kubernetes() -> dict[str, Any]:
    return {part["kind"]: part for part in yaml.safe_load_all(read("kubernetes.yaml"))}


def pod() -> dict[str, Any]:
    return dict(kubernetes()["Deployment"]["spec"]["template"]["spec"])


COMMANDS: dict[str, Callable[[str], list[list[str]]]] = {
    "Dockerfile": lambda text: [json.loads(found) for found in re.findall(r"(?:ENTRYPOINT|\nCMD) (\[.*\])", text)],
    "compose.yaml": lambda text: [yaml.safe_load(text)["services"]["serve"]["command"]],
    "prefrank-serve.service": lambda text: [unit()["Service"]["ExecStart"].split()],
    "kubernetes.yaml": lambda text: [pod()["containers"][0]["args"]],
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_option_and_variable_exists(path: Path) -> None:
    text = path.read_text()
    options = {name for option in typer.main.get_command(app).commands["serve"].params for name in option.opts}
    commands = COMMANDS[path.name](text) if path.name in COMMANDS else []
    assert bool(commands) is (path.name in COMMANDS)
    given = {word for command in commands for word in command if word.startswith("--")}
    assert given <= options
    variables = set(re.findall(rf"\b{PREFIX}([A-Z_]+)\b", text))
    assert {name.lower() for name in variables} <= PLAIN.keys()


def test_the_example_of_settings_loads_and_names_all_of_them(tmp_path: Path) -> None:
    text = read("serve.yaml")
    assert configure({}, {}, DEPLOY / "serve.yaml", LOADING).models == {"helpful": "/srv/models/helpful"}
    shown = re.sub(r"^( *)# (?=[a-z_]+: )", r"\1", text, flags=re.MULTILINE)
    whole = tmp_path / "serve.yaml"
    whole.write_text(shown.replace("api_key_file:", "# api_key_file:"))
    made = configure({}, {}, whole, LOADING)
    assert list(made.models) == ["helpful", "harmless"]
    named = set(re.findall(r"^([a-z_]+): ", shown, re.MULTILINE)) | {"models", "loading"}
    assert named == PLAIN.keys() - {"keys"}


def test_what_is_commented_out_in_the_example_is_the_default() -> None:
    examples = {"tls_certificate", "tls_key", "root_path", "trusted_proxies", "api_key_file", "rows_per_s"}
    lines = re.findall(r"^# ([a-z_]+: .*)$", read("serve.yaml"), re.MULTILINE)
    values: dict[str, Any] = {}
    for line in lines:
        values |= yaml.safe_load(line)
    assert len(values) == len(lines) > 20
    assert {name: value for name, value in values.items() if name not in examples | {"cors_origins"}} == {
        name: PLAIN[name] for name in values if name not in examples | {"cors_origins"}
    }


def test_probes_ask_for_paths_of_the_server() -> None:
    container = pod()["containers"][0]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/ready",
        "readiness": "/ready",
        "liveness": "/live",
    }
    (port,) = container["ports"]
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert port["containerPort"] == ServeSettings(models={"m": "m"}).port
    for text in (read("Dockerfile"), read("compose.yaml")):
        assert f"http://127.0.0.1:{port['containerPort']}/ready" in text
    service = kubernetes()["Service"]["spec"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert service["selector"].items() <= kubernetes()["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_whoever_ends_the_server_waits_until_it_has_drained() -> None:
    drain = ServeSettings(models={"m": "m"}).drain_s
    container = pod()["containers"][0]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > sleep + int(container["args"][-1])
    assert int(unit()["Service"]["TimeoutStopSec"]) > drain
    compose = yaml.safe_load(read("compose.yaml"))["services"]["serve"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > int(compose["command"][-1])


def test_nothing_runs_as_root_and_models_are_only_read() -> None:
    assert re.search(r"^USER (\d+)", read("Dockerfile"), re.MULTILINE)
    compose = yaml.safe_load(read("compose.yaml"))["services"]["serve"]
    assert compose["read_only"]
    assert all(volume["read_only"] for volume in compose["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in compose["ports"])
    assert pod()["securityContext"]["runAsNonRoot"]
    (mount,) = [each for each in pod()["containers"][0]["volumeMounts"] if each["name"] == "model"]
    assert mount["readOnly"]
    assert unit()["Service"]["DynamicUser"] == "yes"


def test_what_the_image_copies_is_there() -> None:
    sources = re.findall(r"^COPY (?!--)(.*) \S+$", read("Dockerfile"), re.MULTILINE)
    assert sources
    assert all((ROOT / name).exists() for line in sources for name in line.split())


def test_the_unit_does_not_start_again_what_cannot_start() -> None:
    from prefrank import errors

    kinds = [errors.BadInput, errors.BadData, errors.BadModel, errors.BadRecipe, errors.NotFound, errors.CannotWrite]
    assert unit()["Service"]["RestartPreventExitStatus"].split() == sorted({str(kind.exit_code) for kind in kinds})
