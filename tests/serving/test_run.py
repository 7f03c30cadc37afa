"""Servers as processes: what signals do under load, reloading of folders that changed, certificates."""

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from prefrank import RewardModel
from prefrank.errors import PrefrankError
from prefrank.serving.hosted import Hosted, Models, host
from prefrank.serving.listener import open_listener, takes_anybody, url_of
from prefrank.serving.run import Ended, next_event, under
from prefrank.serving.settings import ServeSettings
from tests.serving.processes import serving, wait_until
from tests.tiny import bert_folder, decoder_folder

PROMPT = "how do I bake bread"
REPLIES = ["mix flour water salt", "no", "the dough needs an hour to rise"]
KEY = {"authorization": "Bearer secret-key-1"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [bert_folder(root / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture
def served(folders: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders[0], tmp_path / "served"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# of the tests\nsecret-key-1\nsecret-key-2\n")
    path.chmod(0o600)
    return path


def overwrite(folder: Path, by: Path) -> None:
    """File by file and in place, as careless programs do."""
    for path in by.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def scores(folder: Path, replies: list[str]) -> list[float]:
    return [score.value for score in RewardModel.load(folder).score(PROMPT, replies)]


def ask(url: str, replies: list[str]) -> httpx.Response:
    body = {"prompt": PROMPT, "replies": replies}
    return httpx.post(f"{url}/api/score", json=body, headers=KEY, timeout=60)


def given(response: httpx.Response) -> list[float]:
    return [score["score"] for score in response.json()["scores"]]


@contextmanager
def asking(url: str) -> Iterator[list[httpx.Response]]:
    """Two clients ask one request after the other until the block ends; it gives their answers so far."""
    answers: list[httpx.Response] = []
    enough = threading.Event()

    def go() -> None:
        while not enough.is_set():
            answers.append(ask(url, REPLIES))

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(go) for _ in range(2)]
        try:
            yield answers
        finally:
            enough.set()
    for client in clients:
        client.result()  # raises what the client met


def test_reloading_and_draining_under_load(folders: list[Path], served: Path, key_file: Path) -> None:
    models = [RewardModel.load(folder) for folder in folders]
    right = {model.fingerprint: [score.value for score in model.score(PROMPT, REPLIES)] for model in models}
    old, new = right
    many = [f"{reply} {number}" for number in range(1_000) for reply in REPLIES]
    expected = [score.value for score in models[0].score(PROMPT, many)]
    with serving("--model", f"m={served}", "--api-key-file", str(key_file)) as server:
        url = server.url
        assert httpx.get(f"{url}/ready").status_code == 200
        server.wait_for(
            r"^m \(the default\): BertForSequenceClassification, [\d,]+ parameters, float32 on \w+ \(1 core\), weights"
            rf" \d+ MB.*, at most \d+ tokens, fingerprint {old[:12]}$"
        )
        assert "with a key" in server.wait_for("^Ready on")
        reload = {"url": f"{url}/api/reload", "json": {"model": "m"}, "timeout": 60}
        with asking(url) as answers:
            # A folder that changed, by signal
            overwrite(served, folders[1])
            server.signal(signal.SIGHUP)
            wait_until(lambda: answers[-1:] != [] and answers[-1].headers["x-prefrank-model"] == new, server.lines.copy)
            # A folder that is broken, by signal and by request
            (served / "model.safetensors").write_bytes(b"torn")
            server.signal(signal.SIGHUP)
            assert "half-written" in server.wait_for("error: m was not reloaded and is served as before: ")
            broken = httpx.post(**reload, headers=KEY)
            assert broken.status_code == 500
            assert "is the same as before" in broken.json()["error"]["message"]
            # And the first again, by request
            assert httpx.post(**reload).status_code == 401
            assert httpx.post(**(reload | {"json": {"model": "x"}}), headers=KEY).status_code == 404
            assert httpx.post(**(reload | {"json": {"modle": "m"}}), headers=KEY).status_code == 422
            overwrite(served, folders[0])
            done = httpx.post(**reload, headers=KEY)
            assert done.json() == {"model": "m", "before": new, "fingerprint": old}
            count = len(answers)
            wait_until(lambda: len(answers) > count + 4, lambda: "no more answers")
        assert {answer.status_code for answer in answers} == {200}
        assert all(given(answer) == right[answer.json()["fingerprint"]] for answer in answers)
        order = [answer.headers["x-prefrank-model"] for answer in answers]
        assert set(order[-3:]) == {old}

        answered: list[httpx.Response] = []

        def go_on() -> tuple[float, int | None]:
            """When the request was made that got no scores, and its status; none if nobody was there."""
            while True:
                began = time.monotonic()
                try:
                    answer = ask(url, many)
                except httpx.TransportError:
                    return began, None
                if answer.status_code != 200:
                    return began, answer.status_code
                answered.append(answer)

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(go_on) for _ in range(4)]
            wait_until(lambda: bool(answered), lambda: "no answer")
            told = time.monotonic()
            server.signal(signal.SIGTERM)
            server.wait_for("ending; [1-9][0-9]* rows are still to be answered")
            late, ready, live = ask(url, REPLIES), httpx.get(f"{url}/ready"), httpx.get(f"{url}/live")
        assert (late.status_code, ready.status_code, live.status_code) == (503, 503, 200)
        assert late.headers["retry-after"] == "1"
        assert all(given(answer) == expected for answer in answered)
        for began, status in [client.result() for client in clients]:
            assert status == 503 or (status is None and began > told)  # what was accepted had its answer
        assert server.ends_with() == 0
        server.wait_for("ended$")


def test_settings_come_from_everywhere_and_certificates_are_read_again(
    folders: list[Path], tmp_path: Path, key_file: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and there is none")
    certificate = tmp_path / "tls.pem"
    _certify(certificate, tmp_path)
    decoder = decoder_folder(tmp_path / "decoder")
    config = tmp_path / "serve.yaml"
    config.write_text(
        f"models: {{first: {folders[0]}, second: {decoder}}}\nlog_format: json\nmax_rows: 7\nmax_text_characters: 50\n"
        f"tls_certificate: {certificate}\ntls_key: {tmp_path / 'key.pem'}\nloading: {{kernels: torch}}\n"
    )
    environment = {"PREFRANK_SERVE_MAX_ROWS": "2", "PREFRANK_SERVE_KEYS": "secret-key-3", "PREFRANK_SERVE_PORT": "1"}
    arguments = ("--config", str(config), "--host", "localhost", "--max-text-characters", "60")
    with serving(*arguments, "--api-key-file", str(key_file), environment=environment) as server:
        ready = json.loads(server.wait_for('"ready"'))
        assert [model["about"]["name"] for model in ready["models"]] == ["first", "second"]
        assert [model["about"]["kernels"] for model in ready["models"]] == ["torch", "torch"]
        assert ready["models"][0]["weight_bytes"] == 4 * ready["models"][0]["about"]["parameters"]
        assert ready["needs_key"]
        assert not ready["is_open"]
        url = ready["url"]

        def post(replies: list[str], key: str) -> httpx.Response:
            trusting = ssl.create_default_context(cafile=certificate)
            body = {"model": "second", "prompt": PROMPT, "replies": replies}
            with httpx.Client(verify=trusting) as client:
                return client.post(f"{url}/api/score", json=body, headers={"authorization": f"Bearer {key}"})

        answer = post(REPLIES[:2], "secret-key-3")
        own = RewardModel.load(decoder, kernels="torch").score(PROMPT, REPLIES[:2])
        assert given(answer) == pytest.approx([score.value for score in own], abs=1e-5)
        assert "server" not in answer.headers
        assert post(REPLIES[:2], "secret-key-2").status_code == 200
        counted = httpx.get(f"{url}/metrics", verify=ssl.create_default_context(cafile=certificate)).text
        assert 'prefrank_rows_total{model="second"} 4.0' in counted
        assert post(REPLIES[:2], "secret-key-4").status_code == 401
        assert "at most 2" in post(REPLIES, "secret-key-1").json()["error"]["message"]
        assert "at most 60" in post(["x" * 80], "secret-key-1").json()["error"]["message"]
        if hasattr(signal, "SIGHUP"):
            _certify(certificate, tmp_path)
            with pytest.raises(httpx.ConnectError):
                post(REPLIES[:2], "secret-key-3")
            server.signal(signal.SIGHUP)
            server.wait_for("second was reloaded .* is the same")
            assert post(REPLIES[:2], "secret-key-3").status_code == 200
        server.signal(signal.SIGINT)
        assert server.ends_with() == 0
        assert all(json.loads(line)["level"] for line in server.lines)
        asked = [json.loads(line) for line in server.lines if '"path"' in line]
        assert [each["status"] for each in asked].count(401) == 1
        assert {each["model"] for each in asked if each["status"] == 200} == {"second"}
        assert not any("secret-key" in line for line in server.lines)


def _certify(certificate: Path, folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", folder / "key.pem", "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


def test_one_model_is_the_default_and_what_is_no_http_is_not_in_the_log(folders: list[Path]) -> None:
    first, second = folders
    with serving("--model", f"a={first}", "--model", f"b={second}", "--log-format", "text") as server:
        url = httpx.URL(server.url)
        shown = [line.partition(":")[0] for line in server.lines if "parameters" in line]
        assert shown == ["a (the default)", "b"]
        for data in (b"no http at all\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n"):
            with socket.create_connection((url.host, url.port or 0), 10) as line:
                line.sendall(data)
                assert line.recv(100).startswith(b"HTTP/1.1 400")
        server.signal(signal.SIGTERM)
        assert server.ends_with() == 0
        server.wait_for("info: ended$")
        assert not [line for line in server.lines if "Invalid HTTP" in line]


def test_reloads_that_wait_begin_no_more_once_the_server_ends(folders: list[Path]) -> None:
    settings = ServeSettings(models={"m": str(folders[0])})
    begun, may_end = threading.Event(), threading.Event()
    loads: list[str] = []

    def load(name: str) -> Hosted:
        loads.append(name)
        if len(loads) > 1:
            begun.set()
            may_end.wait(10)
        return host(name, RewardModel.load(folders[0]), settings)

    models = Models(["m"], load)
    models.load_all()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(models.reload, "m", drain_s=5.0)
        assert begun.wait(10)
        second = threads.submit(models.reload, "m", drain_s=5.0)
        models.close(5.0)
        assert models.is_changing
        may_end.set()
        first.result(10)
        with pytest.raises(PrefrankError, match="the server is shutting down"):
            second.result(10)
    assert len(loads) == 2
    assert not models.is_changing


@pytest.mark.slow
def test_a_second_signal_ends_the_process_where_it_stands(served: Path) -> None:
    with serving("--model", str(served)) as server:
        url = server.url
        many = [f"{reply} {number}" for number in range(1_300) for reply in REPLIES]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, url, [f"{reply} {name}" for reply in many]) for name in range(8)]
            time.sleep(0.5)
            server.signal(signal.SIGTERM)
            server.wait_for("ending; [1-9]")
            server.signal(signal.SIGTERM)
            assert server.ends_with() == 128 + signal.SIGTERM
            assert any(isinstance(each.exception(), httpx.TransportError) for each in asked)


@pytest.mark.slow
def test_what_does_not_end_in_time_is_given_up(served: Path) -> None:
    with serving("--model", str(served), "--drain-s", "0.2") as server:
        url = server.url
        with ThreadPoolExecutor(8) as pool:
            many = [f"{reply} {number}" for number in range(1_300) for reply in REPLIES]
            asked = [pool.submit(ask, url, [f"{reply} {name}" for reply in many]) for name in range(8)]
            time.sleep(0.5)
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            assert server.ends_with() == 0
            assert time.monotonic() - began < 40
            server.wait_for("error: [1-9][0-9]* rows were not answered within 0.2 s")
            assert all(each.exception() is not None or each.result().status_code >= 200 for each in asked)


@pytest.mark.slow
def test_a_server_that_is_told_to_end_while_it_loads_ends(served: Path) -> None:
    with serving("--model", str(served)) as server:
        server.wait_for("listening on")
        server.signal(signal.SIGTERM)
        assert server.ends_with() == 0


@pytest.mark.slow
def test_reloading_many_times_keeps_memory(served: Path) -> None:
    with serving("--model", str(served)) as server:
        server.wait_for("Ready")
        sizes = []
        for number in range(1, 31):
            server.signal(signal.SIGHUP)
            server.wait_for("was reloaded", number)
            sizes.append(int(Path(f"/proc/{server.popen.pid}/statm").read_text().split()[1]) * 4096)
        assert sizes[-1] < sizes[9] + 20e6, sizes


def test_a_signal_that_another_thread_is_given_is_seen() -> None:
    """The system chooses the thread; Python runs the handler on the main one, once that has a turn."""
    events: SimpleQueue[int | Ended] = SimpleQueue()
    signal.signal(signal.SIGTERM, lambda number, frame: events.put(number))

    def be_given() -> None:
        time.sleep(0.2)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    giving, ending = threading.Thread(target=be_given), threading.Timer(20, events.put, (Ended("too late"),))
    giving.start()
    ending.start()
    assert next_event(events) == signal.SIGTERM
    ending.cancel()
    giving.join()
    ending.join()


def test_a_port_in_use_is_said() -> None:
    with open_listener(_settings(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"^port {port} of 127.0.0.1 is in use; choose another with --port"):
            open_listener(_settings(port=port))
        assert url_of(_settings(port=0), listener) == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("root", ["", "/reward"])
def test_a_path_of_a_proxy_is_taken_off_where_it_stands(root: str) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])

    async def nothing(*given: Any) -> Any:
        raise AssertionError

    for path in ("/ready", "/reward/ready", "/reward", "/rewarding", "/"):
        asyncio.run(_run(under(root, app), {"type": "http", "path": path}, nothing))
    taken = ["/ready", "/ready", "/", "/rewarding", "/"]
    assert seen == (taken if root else ["/ready", "/reward/ready", "/reward", "/rewarding", "/"])


async def _run(app: ASGIApp, scope: Scope, nothing: Any) -> None:
    await app(scope, nothing, nothing)


@pytest.mark.parametrize(
    ("host", "keys", "expected"),
    [
        ("127.0.0.1", (), False),
        ("127.9.9.9", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("example.com", (), True),
        ("0.0.0.0", ("a",), False),
    ],
)
def test_a_server_is_open_if_others_reach_it_without_a_key(host: str, keys: tuple[str, ...], expected: bool) -> None:
    assert takes_anybody(_settings(host=host, keys=keys)) is expected


@pytest.mark.parametrize(
    ("host", "message"),
    [("no.host.invalid", "which has no address here"), ("192.0.2.1", "which is no address of this machine")],
)
def test_an_address_of_no_use_is_said(host: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_listener(_settings(host=host))


def test_tls_files_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN CERTIFICATE-----\n")
    for settings, message in (
        ({"tls_certificate": str(tmp_path / "none.pem")}, "there is no file"),
        ({"tls_certificate": str(torn)}, "cannot be used .*wanted a certificate chain and its own key"),
        ({"tls_key": str(torn)}, "tls_key is given without tls_certificate"),
        ({"tls_certificate": str(tmp_path)}, "is a folder"),
    ):
        with pytest.raises((ValueError, LookupError), match=message):
            open_listener(_settings(port=0, **settings))


def _settings(**given: Any) -> ServeSettings:
    return ServeSettings(models={"m": "m"}, **given)
