# ruff: noqa: E501, B023
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from prefrank.errors import BadModel, BadText
from prefrank.text import TextEncoder, load_tokenizer, with_chat_template
from prefrank.text.budget import Budget
from prefrank.text.rendering import render_chat, written_by
from prefrank.text.sandbox import render
from prefrank.types import Turn, as_prompt
from tests.text.families import FAMILIES
from tests.text.hostile_templates import FORBIDDEN, MEMORY, SHARED, SOURCE, WORK
from tests.tiny import TEMPLATE, chat_folder

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "", "pad_token": ""}
CALL = {"function": {"name": "oven", "arguments": {"of": "brot & <é>", "n": [1, 2.5, None, True]}}}
MESSAGES = [
    {"role": "system", "content": "be terse"},
    {"role": "user", "content": " a<b\n\tc  "},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "so"},
    {"role": "tool", "content": "230", "name": "oven"},
    {"role": "assistant", "content": "hot </think> é"},
]


def theirs(template: str, messages: list[dict]) -> str:
    return render_jinja_template(conversations=[messages], chat_template=template, **TOKENS)[0][0]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_TEMPLATE_STEPS", "60000")


def refused(tmp_path: Path, template: str) -> str:
    source = load_tokenizer(chat_folder(tmp_path, template))
    with pytest.raises(BadModel) as caught:
        render_chat(source, MESSAGES[:2], TOKENS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", WORK)
def test_work_without_end_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, WORK[name])
    assert "PREFRANK_MAX_TEMPLATE_" in said or "inside each other" in said


@pytest.mark.parametrize("name", MEMORY)
def test_memory_without_end_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, MEMORY[name])
    assert "PREFRANK_MAX_TEMPLATE_" in said or "whole numbers" in said


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", SHARED)
def test_values_that_are_shared_again_and_again_are_never_looked_through_in_full(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, SHARED[name])
    assert "PREFRANK_MAX_TEMPLATE_" in said or "inside each other" in said


@pytest.mark.parametrize("name", SOURCE)
def test_templates_that_no_compiler_takes_are_refused(tmp_path: Path, name: str) -> None:
    assert "any model's" in (said := refused(tmp_path, SOURCE[name])) or "PREFRANK_MAX_TEMPLATE_CHARACTERS" in said


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_another_text_at_each_call_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, FORBIDDEN[name]).startswith("the chat template ")


def test_a_refusal_is_the_same_each_time_and_the_variable_raises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for i in range(30000) %}{% for m in messages %}{% endfor %}{% endfor %}ok"
    monkeypatch.setenv("PREFRANK_MAX_TEMPLATE_STEPS", "50000")
    first, second = refused(tmp_path / "0", template), refused(tmp_path / "1", template)
    assert first == second
    assert "takes more than 50,000 steps, which PREFRANK_MAX_TEMPLATE_STEPS may raise" in first
    monkeypatch.setenv("PREFRANK_MAX_TEMPLATE_STEPS", "1e6")
    assert render(template, MESSAGES[:2], TOKENS) == "ok"


WORDS = st.text("ab <é\n\t|", max_size=12)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(list(FAMILIES)), texts=st.lists(WORDS, min_size=2, max_size=6))
def test_known_templates_write_what_transformers_writes(name: str, texts: list[str]) -> None:
    messages = [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]
    assert render(FAMILIES[name][1], messages, TOKENS) == theirs(FAMILIES[name][1], messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_long_conversations_and_replies_take_a_third_of_what_they_may(name: str) -> None:
    long = [{"role": "assistant" if n % 2 else "user", "content": f" {n} <think>a</think>"} for n in range(1000)]
    for messages in (long, [MESSAGES[1], {"role": "assistant", "content": "<think>so</think> word\n" * 20_000}]):
        left = []
        before = Budget.step

        class Spied(Budget):
            def __init__(self, given: list[Mapping[str, object]]) -> None:
                super().__init__(given)
                left.append((self, self.steps, self.bytes))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prefrank.text.sandbox.Budget", Spied)
            assert render(FAMILIES[name][1], messages, TOKENS) == theirs(FAMILIES[name][1], messages)
        assert before is Budget.step
        ((budget, steps, size),) = left
        assert steps - budget.steps < steps / 3
        assert size - budget.bytes < size / 4


FEATURES = [
    "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.role }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.length }}{{ loop.last }}{% endfor %}",
    "{% for m in messages if m.role != 'tool' %}{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}"
    "{{ x is defined }}{% else %}none{% endfor %}",
    "{% set ns = namespace(n=0, t='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.t = ns.t ~ m.role[0] %}"
    "{% endfor %}{{ ns.n }}{{ ns.t }}",
    "{% macro f(a, b=2) %}{{ a }}-{{ b }}{{ caller() if caller }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}"
    "{% call f('x') %}inside{% endcall %}",
    "{% for x in [[1, [2]], 3] recursive %}{{ loop.depth }}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "{% set x %}a{{ messages[0].content }}{% endset %}{{ x | upper }}{% filter trim | upper %} b {% endfilter %}",
    "{% with a = 1 %}{{ a }}{% endwith %}{% block b %}{{ self.c() }}{% endblock %}{% block c %}c{% endblock %}",
    "{{ messages[2].tool_calls | tojson }}{{ messages[2] | tojson(indent=2) }}{{ {'b': 1, 'a': '<é>'} | tojson(ensure_ascii=true,"
    " separators=(',', ':'), sort_keys=true) }}",
    "{{ messages[::-1][0].content }}{{ messages[1:3] | length }}{{ messages[-1]['content'][:-2] }}{{ 'abc'[::2] }}",
    "{{ messages | selectattr('role', 'equalto', 'tool') | map(attribute='content') | join(', ') }}"
    "{{ messages | rejectattr('tool_calls', 'defined') | list | length }}{{ messages | map(attribute='role') | unique | sort | join }}",
    "{{ messages[1].content.strip().split('\n') }}{{ ' a '.rstrip() }}{{ 'a,b'.split(',', 1)[1] }}{{ 'x'.join(['a', 'b']) }}"
    "{{ 'aXa'.replace('X', '<') }}{{ 'a'.startswith(('a', 'b')) }}{{ 'ab'.find('b') }}{{ 'title me'.title() }}{{ 'é'.encode('utf-8').decode() }}",
    "{{ '%s-%03d-%.2f' % ('a', 5, 1.5) }}{{ '{0}-{a:>5}-{0!r}'.format('x', a=3) }}{{ '%s' | format('y') }}{{ '{b}'.format_map({'b': 2}) }}",
    "{{ 1 + 2 * 3 - 4 / 5 // 1 % 3 ** 2 }}{{ -1 }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ [1] + [2] }}{{ 'a' * 3 }}{{ 3 * [0] }}",
    "{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 2 not in [1, 3] }}{{ messages[0] == messages[0] }}{{ 'role' in messages[0] }}"
    "{{ messages[0].role in ['system', 'x'] }}{{ none is none }}{{ x is undefined }}{{ messages is sequence }}{{ 3 is odd }}"
    "{{ 4 is divisibleby 2 }}{{ 'a' is eq 'a' }}{{ 1 is in [1] }}{{ 'A' is upper }}",
    "{{ {'a': 1}.items() | list }}{{ dict(a=1)['a'] }}{% for k, v in {'b': 2, 'a': 1} | dictsort %}{{ k }}{{ v }}{% endfor %}"
    "{% for k, v in {'a': 1} | items %}{{ k }}{% endfor %}{{ {'a': 1}.get('b', 5) }}{{ dict.fromkeys(['a']) }}{{ {1: 2}[1] }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{% set j = joiner(', ') %}{{ j() }}{{ j() }}"
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}",
    "{% autoescape true %}{{ messages[1].content }}{{ '<b>' | safe }}{{ bos_token ~ ('>' | safe) }}{{ bos_token ~ eos_token }}{% endautoescape %}{{ bos_token ~ ('>' | e) }}"
    "{{ messages[1].content | e }}{{ ('<' | e) + '<' }}{{ ('%s' | e) % '<' }}{{ ('{}' | e).format('<') }}",
    "{{ 'a b c' | wordcount }}{{ 'abc' | center(9) }}|{{ 'a\nb' | indent(2) }}{{ 'long text here' | truncate(8) }}"
    "{{ 'a b c d' | wordwrap(3) }}{{ 2.567 | round(1) }}{{ [3, 1] | sort }}{{ [1, 2, 3] | sum }}{{ [[1], [2]] | sum(start=[]) }}"
    "{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2, 0) | list }}{{ 'a' | default('b') }}{{ '' | d('b', true) }}",
    "{{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}] | groupby('a') | list }}{{ ['a', 'b'] | map('upper') | first }}{{ [1, 2] | last }}"
    "{{ 'abc' | reverse }}{{ [1, 2] | reverse | list }}{{ [2, 1] | min }}{{ '5' | int + 1 }}{{ '1.5' | float }}{{ 'a' | list }}"
    "{{ 'a&b' | urlencode }}{{ '<b>x</b>' | striptags }}{{ 1234567 | filesizeformat }}{{ [1] | pprint }}{{ 'a' | string }}{{ -1 | abs }}",
    "{{ messages[0] | attr('x') }}{{ messages[2].thinking }}{{ range(2, 8, 3) | list }}{{ tools is none }}{{ documents is none }}"
    "{{ add_generation_prompt }}{{ bos_token }}{{ (1, 2) }}{{ 1.0 }}{{ none }}{{ true }}{{ [none, 'é\n'] }}{{ undefined_name }}",
    "{% if messages | selectattr('x') %}a generator is true{% endif %}{{ 'yes' if 1 else 'no' }}{{ 'x' if false }}",
    "{% set a, b = 1, 2 %}{{ a ~ b ~ none ~ [1] }}{%- for i in range(3) -%} {{ i }} {%- endfor -%}{# comment #}{% raw %}{{ }}{% endraw %}",
]  # fmt: skip


@pytest.mark.parametrize("template", FEATURES)
def test_all_that_templates_use_works_as_in_transformers(template: str) -> None:
    before = json.dumps(MESSAGES)
    assert render(template, MESSAGES, TOKENS) == theirs(template, MESSAGES)
    assert json.dumps(MESSAGES) == before


FAILING = [
    "{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ x.y.z }}", "{{ raise_exception('one\ntwo') }}", "{{ 2.0 ** 10000 }}",
    "{{ range(10**9) }}", "{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% extends 'x' %}", "{{ {}['a']['b'] }}", "{{ 1e999 }}", "{{ [1] | first('x') }}",
    "{{ '%d' % 'a' }}", "{{ '{x}'.format() }}", "{% for a, b in [1] %}{% endfor %}", "{{ namespace(_a=1) }}",
    "{{ 'a' | int.x() }}", "{{ raise_exception() }}", "{{ messages() }}", "{{ [].index(1) }}", "{{ 'a' | nothing }}",
    "{{ raise_exception('x' * 100000) }}", "{{ messages | sort }}", "{{ {[]: 1} }}",
    "{% set loop = 1 %}{% for x in [1] %}{% set loop = 2 %}{% endfor %}", "{% break %}", "{{ 0x" + "f" * 9999 + " }}",
]  # fmt: skip


@pytest.mark.parametrize("template", FAILING)
def test_templates_that_fail_say_so_in_one_line(tmp_path: Path, template: str) -> None:
    folder = chat_folder(tmp_path, "x")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template})
    )
    encoder = TextEncoder.load(folder)
    with pytest.raises((BadModel, BadText)) as caught:
        encoder.encode(as_prompt("hi"), ["there"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("template", ["{{ '\ud800' }}", "{{ '%c' % 55296 }}", "{{ '\\ud800' }}", "x\udfff"])
def test_a_template_that_writes_half_of_a_character_says_so_in_one_line(template: str) -> None:
    with pytest.raises(BadText, match=r"^the model's chat template writes half of a character \('.*'\)[^\n]*$"):
        written_by(template, MESSAGES, TOKENS)


def test_what_opens_a_reply_is_written_where_it_is_asked_for() -> None:
    template = "{{ messages | length }}{% if add_generation_prompt %}>{% endif %}"
    assert [written_by(template, MESSAGES, TOKENS, cue=cue) for cue in (False, True)] == ["5", "5>"]


@pytest.mark.parametrize("template", ["{% set x = 1 %}", "{# nothing #}", "{{ '' }}", "{% if false %}x{% endif %}"])
def test_a_template_that_writes_nothing_is_refused(tmp_path: Path, template: str) -> None:
    encoder = TextEncoder.load(chat_folder(tmp_path, template))
    with pytest.raises(
        BadText, match=r"pair 0: the model's chat template writes nothing for turns of the roles user; fix it"
    ):
        encoder.encode(as_prompt("hi"), ["there"])


def test_an_expensive_template_is_tried_once_when_it_is_loaded_and_another_may_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRANK_MAX_TEMPLATE_STEPS", "50000")
    calls = []
    made = Budget.__init__
    monkeypatch.setattr(Budget, "__init__", lambda self, given: (calls.append(1), made(self, given))[1])
    encoder = TextEncoder.load(chat_folder(tmp_path, WORK["nested loops"]))
    assert len(calls) == 1
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    given = TextEncoder(with_chat_template(encoder.source, str(tmp_path / "mine.jinja")), encoder.settings)
    assert given.encode(as_prompt("hi"), ["there"])[0].lost == 0


@pytest.mark.parametrize(
    "extra",
    ['{"tool_calls": "oven"}', '{"tool_calls": ["oven"]}', '{"tool_calls": [{"function": null}]}', "[1]", "{", "7",
     '{"tool_calls": {"function": {"name": "x"}}}', '{"tool_calls": [{"function": {"name": 7}}]}',
     '{"function_call": {"name": null}}', '{"name": "\\ud800"}', '{"tool_calls": [{"name": "x", "arguments": "\\udc00"}]}',
     '{"name": NaN}', '{"name": ' + "[" * 5000 + "]" * 5000 + "}"],
)  # fmt: skip
def test_odd_tool_calls_are_one_line(tmp_path: Path, extra: str) -> None:
    encoder = TextEncoder.load(chat_folder(tmp_path, TEMPLATE.replace("m['content']", "(m | tojson)")))
    with pytest.raises(BadText, match=r"^[^\n]*$"):
        encoder.encode((Turn("user", "hi"), Turn("assistant", "x", extra), Turn("user", "so")), ["there"])


def test_a_template_that_writes_marks_of_its_own_changes_no_text(tmp_path: Path) -> None:
    written = "".join(map(chr, range(0xE000, 0xE008)))
    template = TEMPLATE + "{{ '\\ue0009999\\ue001' }}{{ '%c%d%c' % (57352, 7, 57353) }}" + written
    encoder = TextEncoder.load(chat_folder(tmp_path, template))
    (row,) = encoder.encode(as_prompt("hello <|end|> there"), ["bake"])
    assert row.lost == 0


@pytest.mark.parametrize("role", ["assistant", "tool", "system"])
@pytest.mark.parametrize("turns", [70, 200])
def test_thousands_of_turns_without_a_users_between_are_cut_in_few_renderings(
    tmp_path: Path, role: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    if role == "system":
        template = template.replace("<|start|>{{ m.role }}\n", "").replace("<|end|>", " ")
    encoder = TextEncoder.load(chat_folder(tmp_path, template), max_length=3 * turns if role == "system" else 64)
    calls = []
    made = Budget.__init__
    monkeypatch.setattr(Budget, "__init__", lambda self, given: (calls.append(1), made(self, given))[1])
    prompt = (Turn("user", "hello"), *(Turn(role, f"{n} flour water") for n in range(turns)))
    (row,) = encoder.encode(prompt, ["rise"])
    assert len(row.ids) <= encoder.settings.max_length
    assert len(calls) < 40


def test_a_template_whose_length_does_not_depend_on_the_texts_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.load(chat_folder(tmp_path, "{{ 'hello ' * 65 }}<|end|>"), max_length=64)
    calls = []
    made = Budget.__init__
    monkeypatch.setattr(Budget, "__init__", lambda self, given: (calls.append(1), made(self, given))[1])
    with pytest.raises(BadText, match="the chat template alone takes"):
        encoder.encode(as_prompt("flour " * 2_000), ["rise " * 2_000])
    assert len(calls) < 150
