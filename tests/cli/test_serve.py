"""prefrank serve: what is wrong at its start is one line, and every setting is an option."""

import os
import socket
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from transformers import BertConfig, BertForSequenceClassification

from prefrank.cli.commands import app
from prefrank.serving.settings import ServeSettings
from tests.cli.conftest import Run
from tests.tiny import wordpiece_folder


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PREFRANK_SERVE_"):
            monkeypatch.delenv(name)


def refused(run: Run, *arguments: str) -> tuple[int, str]:
    """The exit code and the one line that says why."""
    code, out, err = run("serve", "--port", "0", *arguments)
    assert out == ""
    (line,) = err.strip().splitlines()
    return code, line


def test_a_port_in_use_is_one_line(run: Run, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused(run, "--model", model, "--port", str(port))
    assert (code, line) == (
        2,
        f"error: port {port} of 127.0.0.1 is in use; choose another with --port, or 0 for a free one",
    )


def test_a_folder_that_is_missing_is_one_line(run: Run, tmp_path: Path) -> None:
    code, line = refused(run, "--model", str(tmp_path / "none"))
    assert code == 2
    assert line.startswith(f"error: there is no folder {tmp_path / 'none'}")


def test_several_heads_without_a_word_on_which_are_one_line(run: Run, tmp_path: Path) -> None:
    wordpiece_folder(tmp_path)
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, id2label={0: "helpful", 1: "harmless"},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    code, line = refused(run, "--model", f"a={tmp_path}")
    assert code == 4
    assert line == f"error: {tmp_path} has the heads helpful, harmless; say with --head which of them is served"
    code, _, err = run("serve", "--port", "0", "--model", f"a={tmp_path}", "--head", "kind")
    assert code in (2, 4)
    assert err.splitlines()[-1].startswith("error: ")
    assert "kind" in err.splitlines()[-1]


def test_a_model_that_cannot_be_loaded_ends_the_server(run: Run, model: str, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in Path(model).iterdir():
        (torn / path.name).write_bytes(path.read_bytes() if path.suffix == ".json" else b"torn")
    code, out, err = run("serve", "--port", "0", "--model", f"a={model}", "--model", f"b={torn}")
    assert (code, out) == (4, "")
    first, last = err.strip().splitlines()
    assert "listening on http://127.0.0.1:" in first
    assert last.startswith(f"error: {torn}")


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [(0o644, "secret\n", "chmod 600"), (0o600, "", "no API key"), (None, "", "there is no file")],
)
def test_a_key_file_of_no_use_is_one_line(
    run: Run, model: str, tmp_path: Path, mode: int | None, text: str, message: str
) -> None:
    path = tmp_path / "keys"
    if mode is not None:
        path.write_text(text)
        path.chmod(mode)
    code, line = refused(run, "--model", model, "--api-key-file", str(path))
    assert code == 2
    assert message in line
    assert "secret" not in line


def test_tls_files_that_are_missing_are_one_line(run: Run, model: str, tmp_path: Path) -> None:
    code, line = refused(run, "--model", model, "--tls-certificate", str(tmp_path / "none.pem"))
    assert (code, line) == (2, f"error: there is no file {tmp_path / 'none.pem'}")


def test_two_models_of_one_name_and_no_model_are_one_line(run: Run, model: str) -> None:
    assert refused(run)[1] == "error: no model is named; give --model FOLDER"
    code, line = refused(run, "--model", model, "--model", model)
    assert code == 2
    assert line.startswith("error: two models are called model; name them: --model first=")


def test_wrong_values_are_one_line_wherever_they_stand(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(run, "-m", model, "--max-rows", "0")[1] == (
        "error: max_rows is 0; wanted at least 1, a whole number"
    )
    config = tmp_path / "serve.yaml"
    config.write_text("max_row: 5\n")
    assert refused(run, "-m", model, "--config", str(config))[1] == (
        f"error: {config}, line 1: max_row is no setting of the server; did you mean 'max_rows'?"
    )
    monkeypatch.setenv("PREFRANK_SERVE_TRUNCATES", "maybe")
    assert refused(run, "-m", model)[1] == (
        "error: PREFRANK_SERVE_TRUNCATES: truncates is 'maybe'; wanted true or false"
    )


def test_every_setting_is_an_option() -> None:
    command = typer.main.get_command(app)
    options = {option.name for option in command.commands["serve"].params}
    assert options >= {part.name for part in fields(ServeSettings)} - {"models", "loading", "keys"} | {"model"}
    assert "keys" not in options, "every user of a machine can see a command's arguments"
