"""Settings of a server: their bounds, their sources, and which of these wins."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.errors import BadInput, NotFound
from prefrank.serving.configure import PREFIX, configure, named_models
from prefrank.serving.settings import ServeSettings

LOADING = ("head", "precision", "kernels", "deterministic")


def configured(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> ServeSettings:
    return configure({"models": {"m": "folder"}} | (flags or {}), environment or {}, file, LOADING)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def test_nothing_given_leaves_the_defaults() -> None:
    assert configured() == ServeSettings(models={"m": "folder"})


def test_flags_go_before_the_environment_and_that_before_the_file(file: Path) -> None:
    file.write_text("port: 1\nmax_rows: 1\nwindow: 1\nloading: {precision: int16, kernels: torch, head: a}\n")
    environment = {
        f"{PREFIX}PORT": "2",
        f"{PREFIX}MAX_ROWS": "2",
        f"{PREFIX}LOADING": "{kernels: avx2, head: b}",
        "OTHER": "",
    }
    made = configured({"port": 3, "loading": {"head": "c"}}, environment, file)
    assert (made.port, made.max_rows, made.window) == (3, 2, 1)
    assert made.loading == {"precision": "int16", "kernels": "avx2", "head": "c"}


@given(
    port=st.integers(0, 65_535), wait=st.floats(0.01, 1e6), truncates=st.booleans(), host=st.text("ab.:1", min_size=1)
)
def test_a_variable_says_what_a_flag_says(port: int, wait: float, truncates: bool, host: str) -> None:
    values = {"port": port, "max_wait_s": wait, "truncates": truncates, "host": host, "rows_per_s": wait}
    environment = {f"{PREFIX}{name.upper()}": str(value).lower() for name, value in values.items()}
    assert configured(environment=environment) == configured(values)


def test_lists_and_models_of_variables_stand_between_commas() -> None:
    environment = {
        f"{PREFIX}MODELS": "first=/a, second=owner/name,/b/third",
        f"{PREFIX}CORS_ORIGINS": "https://a.example, https://b.example",
        f"{PREFIX}KEYS": "key-one,key-two",
    }
    made = configure({}, environment, None, LOADING)
    assert made.models == {"first": "/a", "second": "owner/name", "third": "/b/third"}
    assert list(made.models) == ["first", "second", "third"]
    assert made.cors_origins == ("https://a.example", "https://b.example")
    assert made.keys == ("key-one", "key-two")
    assert "key-one" not in repr(made)


def test_a_file_has_models_by_name_or_as_flags_do(file: Path) -> None:
    for text in ("models: {a: /x/a, b: /y}", "models: [/x/a, b=/y]"):
        file.write_text(text)
        assert configure({}, {}, file, LOADING).models == {"a": "/x/a", "b": "/y"}
    file.write_text("")
    assert configured(file=file) == configured()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 8000", "line 1: prot is no setting of the server; did you mean 'port'?"),
        ("host: a\nport: '8000'", "line 2: port is '8000'; wanted a whole number"),
        ("port: 80000", "line 1: port is 80000; wanted 0 to 65,535"),
        ("max_rows: 0", "line 1: max_rows is 0; wanted at least 1"),
        ("timeout_s: .inf", "line 1: timeout_s is inf; wanted a finite number"),
        ("truncates: 1", "line 1: truncates is 1; wanted true or false"),
        ("log_format: xml", "line 1: log_format is 'xml'; wanted one of 'text', 'json', 'none'"),
        ("cors_origins: [1]", r"line 1: cors_origins[0] is 1; wanted a string"),
        ("keys: [a]", "line 1: keys are not read from here; put them in a file and name it in api_key_file"),
        ("loading: {precison: int8}", "line 1: loading.precison is no option of loading a model; did you mean"),
        ("root_path: reward", "line 1: root_path is 'reward'; wanted a path such as /reward"),
        ("models: {a: 1}", "line 1: models.a is 1; wanted a string"),
        ("models: {' ': b}", "line 1: a model is called ' '; wanted a name that can be seen"),
        ('models: {"a\\nb": c}', "line 1: a model is called 'a\\nb'; wanted a name"),
        ("cors_origins: ['https://a.com/']", "line 1: a CORS origin is 'https://a.com/'; wanted one as browsers"),
        ("cors_origins: [a.com]", "line 1: a CORS origin is 'a.com'; wanted one as browsers send it"),
        ("trusted_proxies: [proxy]", "line 1: a trusted proxy is 'proxy'; wanted an address or a network"),
        ("trusted_proxies: [10.0.0.1/8]", "line 1: a trusted proxy is '10.0.0.1/8'; wanted an address"),
        ("models: {}", "line 1: no model is named"),
        ("- port", "wanted names and values, such as port: 8000"),
        ("a: &a [*a]", "not YAML"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_where(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(BadInput) as error:
        configured(file=file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROT", "1", "PREFRANK_SERVE_PROT: it is no setting of the server; did you mean 'PREFRANK_SERVE_PORT'?"),
        ("PORT", "tcp://10.0.0.1:80", "PREFRANK_SERVE_PORT: port is 'tcp://10.0.0.1:80'; wanted a whole number"),
        ("PORT", " ", "PREFRANK_SERVE_PORT is empty; give it a value, or unset it"),
        ("KEYS", "a,,b", "API key 2 has 0 words; wanted KEY, or NAME KEY"),
        ("KEYS", "a b c", "API key 1 has 3 words; wanted KEY, or NAME KEY"),
        ("MODELS", "a=", "a model is 'a='; wanted a folder or hub id, or NAME=FOLDER"),
        ("MAX_ROWS", "{", "PREFRANK_SERVE_MAX_ROWS, line 1: not YAML"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(name: str, value: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        configured(environment={f"{PREFIX}{name}": value})
    assert message in str(error.value)


def test_a_wrong_flag_or_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^port is 65536; wanted 0 to 65,535"):
        configured({"port": 65_536})
    with pytest.raises(BadInput, match=r"^no model is named; give --model FOLDER"):
        configure({}, {}, None, LOADING)
    with pytest.raises(NotFound, match="there is no file"):
        configured(file=tmp_path / "none.yaml")


def test_models_are_named_by_their_last_part_or_as_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr=1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named_models(["runs/demo/", "a=b", "owner/name", "lr=1"]) == {
        "demo": "runs/demo/",
        "a": "b",
        "name": "owner/name",
        "lr=1": "lr=1",
    }
    assert named_models(["."]) == {tmp_path.name: "."}
    assert named_models(["org/name=runs/demo"]) == {"org/name": "runs/demo"}  # as clients of hub models call it
    with pytest.raises(BadInput, match="two models are called demo; name them: --model first=a/demo"):
        named_models(["a/demo", "b/demo"])


def test_origins_and_proxies_that_can_be_meant_are_taken() -> None:
    origins = ("https://a.com", "http://localhost:3000", "http://[::1]:80", "*", "chrome-extension://abc")
    proxies = ("10.0.0.5", "10.0.0.0/8", "::1", "fd00::/8", "*")
    settings = configured({"cors_origins": list(origins), "trusted_proxies": list(proxies)})
    assert (settings.cors_origins, settings.trusted_proxies) == (origins, proxies)


def test_keys_of_a_file_and_of_the_environment_both_hold(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# one a line\n\nfirst\n second \n")
    path.chmod(0o600)
    made = configured({"api_key_file": str(path)}, {f"{PREFIX}KEYS": "third"})
    assert made.keys == ("third", "first", "second")


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (None, 0o600, "there is no file"),
        ("", 0o600, "no API key"),
        ("# none\n", 0o600, "no API key"),
        ("a\n", 0o644, "chmod 600"),
    ],
)
def test_a_file_of_keys_of_no_use_is_refused(tmp_path: Path, text: str | None, mode: int, message: str) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises((BadInput, NotFound), match=message) as error:
        configured({"api_key_file": str(path)})
    assert error.value.exit_code == 2


def test_every_setting_says_what_it_is() -> None:
    silent = {part.name for part in fields(ServeSettings) if not part.metadata.get("says")}
    assert silent == {"models", "loading", "keys"}
    assert all(part.metadata["says"].endswith(".") for part in fields(ServeSettings) if part.name not in silent)
