import subprocess
import sys

import pytest

from prefrank.errors import BadInput, BadRecipe, NotFound
from prefrank.io.yaml_files import parse_yaml, read_yaml


def value_of(text):
    return parse_yaml(text, "x.yaml", BadRecipe).value


def refused(text):
    with pytest.raises(BadRecipe) as caught:
        value_of(text)
    message = str(caught.value)
    assert message.startswith("x.yaml")
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a: 1\nb: [x, 2.5, true, null, ~]\n", {"a": 1, "b": ["x", 2.5, True, None, None]}),
        ("rate: 2e-6\nother: 1E5\nname: 1e5b\n", {"rate": 2e-6, "other": 1e5, "name": "1e5b"}),
        ("quoted: '2e-6'\nforced: !!str 5\nnumber: !!float 5\n", {"quoted": "2e-6", "forced": "5", "number": 5.0}),
        ("day: 2024-05-01\n", {"day": "2024-05-01"}),
        ("text: |\n  two\n  lines\n", {"text": "two\nlines\n"}),
        ("a: &it [1, 2]\nb: *it\n", {"a": [1, 2], "b": [1, 2]}),
        ("a: &key name\n*key : 2\n", {"a": "name", "name": 2}),
        ("\ufeffa: ü\n", {"a": "ü"}),
        ("? a\n: b\n", {"a": "b"}),
        ("---\na: 1\n...\n", {"a": 1}),
    ],
)  # fmt: skip
def test_plain_values_are_read_as_they_are_written(text, value):
    assert value_of(text) == value


def test_the_outermost_keys_have_lines():
    assert parse_yaml("a: 1\n\nb: {c: 2}\n", "x.yaml", BadRecipe).lines == {"a": 1, "b": 3}


def doubling(levels, brackets="[]"):
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_aliases_count_as_often_as_they_stand():
    assert len(value_of(doubling(10))) == 10
    assert "more than 100,000 values, which PREFRANK_MAX_YAML_VALUES may raise" in refused(doubling(60))
    laughs = "a: &a [lol]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    assert "aliases written out" in refused(laughs)
    assert "aliases written out" in refused(laughs.replace("[", "{k: [").replace("]\n", "]}\n"))


def test_the_bound_of_values_can_be_raised(monkeypatch):
    monkeypatch.setenv("PREFRANK_MAX_YAML_VALUES", "1e6")
    assert len(value_of(doubling(17))) == 17


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "a: &a [[{c: [*a]}]]", "&a {*a : 1}"])
def test_what_holds_itself_is_refused(text):
    assert "stands inside of what it stands for" in refused(text)


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "[" * 101 + "]" * 101])
def test_nesting_is_bounded(text):
    assert "more than 100 levels, which PREFRANK_MAX_YAML_LEVELS may raise" in refused(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: x\x1b[2J\n", "x.yaml, line 2: not YAML: it holds the control character '\\x1b'; remove it"),
        ("a: 1\nb: \"x\\e[2J\"\n", "x.yaml, line 2: not YAML: a value holds the control character"),
        ('a: "\\ud800"\n', "line 1: not YAML: a value holds the control character"),
        ('a: "\\0"\n', "line 1: not YAML: a value holds the control character"),
        ('a: "\\UFFFFFFFF"\n', "line 1: not YAML: "),
        ("a: 1\na: 2\n", "x.yaml, line 2: a already stands in line 1; keep one"),
        ("{a: 1, a: 2}\n", "x.yaml, line 1: a already stands in line 1; keep one"),
        ("1: 2\n", "line 1: not YAML: a key is '1'; wanted a name"),
        ("true: 2\n", "line 1: not YAML: a key is 'true'; wanted a name"),
        ("? [a]\n: 1\n", "line 1: not YAML: a key is not a word; wanted a name"),
        ("? " * 5000, "a key is not a word; wanted a name"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "line 2: not YAML: a key is '<<'; wanted a name"),
        ("a: *b\n", "line 1: not YAML: there is no &b above that *b could stand for"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: not YAML: the tag 'tag:yaml.org,2002:python/object"),
        ("a: !!python/name:os.system x\n", "the tag"),
        ("a: !!set {b, c}\n", "the tag"),
        ("a: !!binary aGk=\n", "the tag 'tag:yaml.org,2002:binary' is not read here"),
        ("a: !own b\n", "the tag '!own' is not read here"),
        ("a: ! b\n", "the tag '!' is not read here"),
        ("a: !!int b\n", "line 1: not YAML: 'b' is not an int"),
        ("a: !!bool b\n", "line 1: not YAML: 'b' is not a bool"),
        ("a: !!float b\n", "line 1: not YAML: 'b' is not a float"),
        (f"a: {'1' * 5000}\n", "line 1: not YAML: a number has 5,000 characters"),
        (f"a: 1{':1' * 5000}\n", "line 1: not YAML: a number has 10,001 characters"),
        (f"a: 0x{'f' * 5000}\n", "line 1: not YAML: a number has"),
        ("a: 08\nb: 0b\n", None),
        ("a: [b\n", "line 2: not YAML: "),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML: a second document begins; keep one"),
        ("%YAML 1" + "0" * 5000 + ".1\n---\na\n", "not YAML: "),
        ("%YAML 3.0\n---\na\n", "not YAML: "),
        ("%TAG ! tag:x,2000:\n---\na: !b c\n", "the tag"),
        ("a: !z!b c\n", "not YAML: "),
        ("a" * (1 << 20) + ": 1\n", "more than 1,048,576 bytes, which PREFRANK_MAX_YAML_BYTES may raise"),
        ("a: *" + "b" * 5000 + "\n", "not YAML: there is no"),
        ("\x85: 1\n\ta: 2", "not YAML: "),
    ],
)  # fmt: skip
def test_everything_else_is_one_line_with_file_and_line(text, message):
    if message is None:
        assert isinstance(value_of(text), dict)
    else:
        assert message in refused(text)


def test_files_are_plain_and_text(tmp_path):
    with pytest.raises(NotFound):
        read_yaml(tmp_path / "none.yaml", BadRecipe)
    with pytest.raises(BadRecipe, match="is a folder"):
        read_yaml(tmp_path, BadRecipe)
    (tmp_path / "bytes.yaml").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(BadRecipe, match="is not UTF-8 text"):
        read_yaml(tmp_path / "bytes.yaml", BadRecipe)
    (tmp_path / "good.yaml").write_text("a: 1\n")
    assert read_yaml(tmp_path / "good.yaml", BadInput).value == {"a": 1}


def test_the_package_reads_without_yaml():
    code = "import sys; sys.modules['yaml'] = None; import prefrank.io.yaml_files"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
