"""API keys: where they come from, how they are compared, and what each may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.errors import BadInput, NotFound
from prefrank.serving.keys import BURST_S, Keys, Shares, load_keys
from prefrank.wire.route import Refused


def write(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def test_a_file_has_a_key_a_line_with_a_name_or_without(tmp_path: Path) -> None:
    lines = load_keys(write(tmp_path, "\ufeff# of the trainers\n\ntrainer abc\r\n  def  \n"))
    assert lines == ("trainer abc", "def")
    keys = Keys.of(lines)
    assert keys.name_of("Bearer abc") == "trainer"
    assert keys.name_of("bearer  def ") == "key-2"


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("", 0o600, "holds no API key"),
        ("# none\n\n", 0o600, "holds no API key"),
        ("a b c", 0o600, "API key 1 has 3 words"),
        ("kéy", 0o600, "cannot be sent in a header"),
        ("a" * 1_001, 0o600, "up to 1,000 visible ASCII characters"),
        ("a x\na y", 0o600, "two API keys have the name a"),
        ("a x\nb x", 0o600, "one API key stands twice"),
        (b"\xff\xfe", 0o600, "is not UTF-8 text"),
        ("abc", 0o644, "can be read by strangers or written by its group (mode 0644); chmod 600"),
        ("abc", 0o660, "mode 0660"),
        ("abc", 0o604, "mode 0604"),
        ("abc", 0o602, "mode 0602"),
    ],
)
def test_a_file_that_is_unsafe_or_holds_no_keys_is_refused(
    tmp_path: Path, content: str | bytes, mode: int, words: str
) -> None:
    with pytest.raises(BadInput) as error:
        load_keys(write(tmp_path, content, mode))
    assert words in str(error.value)
    assert "abc" not in str(error.value)  # no key in any message


def test_a_secret_that_its_group_may_read_is_taken(tmp_path: Path) -> None:
    assert load_keys(write(tmp_path, "abc", 0o440)) == ("abc",)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        load_keys(tmp_path / "missing")
    with pytest.raises(BadInput, match="wanted a plain file"):
        load_keys(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="wanted a plain file"):
        load_keys(tmp_path / "pipe")


def test_keys_are_not_shown() -> None:
    assert "abc" not in repr(Keys.of(["abc"]))


@given(st.text(max_size=30))
def test_only_the_key_opens(header: str) -> None:
    keys = Keys.of(["trainer s3cret", "other"])
    scheme, _, given_key = header.partition(" ")
    if scheme.lower() == "bearer" and given_key.strip() in ("s3cret", "other"):
        return
    with pytest.raises(Refused) as refused:
        keys.name_of(header)
    assert refused.value.kind == "unauthorized"
    with pytest.raises(Refused):
        keys.name_of(f"Bearer s3cret{header.strip() or 'x'}")


def test_without_keys_all_may_ask() -> None:
    assert Keys.of([]).name_of(None) is None


def test_a_share_is_a_rate_with_ten_seconds_of_it_at_once() -> None:
    now = [0.0]
    shares = Shares(2.0, lambda: now[0])
    shares.take("a", int(2 * BURST_S))
    with pytest.raises(Refused) as refused:
        shares.check("a")
    assert (refused.value.kind, refused.value.retry_after_s) == ("limited", 0.5)
    shares.take("b", 1)  # another's is its own
    now[0] += 0.5
    shares.take("a", 41)  # whole requests pass while anything is left
    now[0] += 20.0
    with pytest.raises(Refused) as refused:
        shares.take("a", 1)
    assert refused.value.retry_after_s == 0.5
    now[0] += 0.5
    shares.take("a", 1)


def test_no_rate_is_no_bound() -> None:
    shares = Shares(None)
    for _ in range(3):
        shares.take(None, 10**9)
        shares.check(None)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60))
def test_nobody_gets_more_than_the_burst_the_rate_and_one_request(asks: list[tuple[float, int]]) -> None:
    now, taken = [0.0], 0
    shares = Shares(3.0, lambda: now[0])
    for wait, rows in asks:
        now[0] += wait
        try:
            shares.take("a", rows)
        except Refused:
            continue
        taken += rows
        assert taken <= 3.0 * BURST_S + 3.0 * now[0] + rows + 1e-6
