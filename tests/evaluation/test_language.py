from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.evaluation import language
from prefrank.evaluation.items import Item
from prefrank.evaluation.language import can_detect, detect_languages, languages_of
from prefrank.types import Preference, Prompt, Turn, as_prompt

SENTENCES = {
    "en": "How long does the dough have to rest before I put it in the oven?",
    "de": "Wie lange muss der Teig ruhen, bevor er in den Ofen kommt?",
    "fr": "Combien de temps la pâte doit-elle reposer avant d'aller au four ?",
    "es": "¿Cuánto tiempo tiene que reposar la masa antes de ir al horno?",
    "pt": "Quanto tempo a massa precisa descansar antes de ir para o forno?",
    "it": "Quanto tempo deve riposare l'impasto prima di andare in forno?",
    "nl": "Hoe lang moet het deeg rusten voordat het de oven in gaat?",
    "sv": "Hur länge måste degen vila innan den ska in i ugnen?",
    "pl": "Jak długo ciasto musi odpoczywać, zanim trafi do pieca?",
    "ru": "Сколько времени тесто должно отдыхать перед выпечкой?",
    "uk": "Скільки часу тісто має відпочивати перед випічкою?",
    "ar": "كم من الوقت يجب أن ترتاح العجينة قبل وضعها في الفرن؟",
    "hi": "आटे को ओवन में रखने से पहले कितनी देर रखना चाहिए?",
    "bn": "রুটি বানানোর আগে ময়দা কতক্ষণ রাখতে হবে?",
    "tr": "Hamur fırına girmeden önce ne kadar dinlenmeli?",
    "vi": "Bột cần nghỉ bao lâu trước khi cho vào lò nướng?",
    "zh": "面团进烤箱之前要醒多久？",
    "ja": "パン生地は焼く前にどのくらい休ませますか。",
    "ko": "반죽은 굽기 전에 얼마나 쉬어야 하나요?",
    "th": "ต้องพักแป้งนานแค่ไหนก่อนเข้าเตาอบ",
    "el": "Πόση ώρα πρέπει να ξεκουραστεί η ζύμη;",
    "he": "כמה זמן הבצק צריך לנוח לפני האפייה?",
}
UNDECIDED = [
    "", "  \n ", "ok", "Bonjour", "WLAN", "12 + 30 = 42", "3.14159 2.71828 1.41421 1.61803 0.57721", "🙂🙂🙂", "-----",
    "for (int i = 0; i < n; i++) { a[i] = b[i] * 2; } // done", "x = [f(y) for y in z if y > 0 and y != 3]",
    "https://en.wikipedia.org/wiki/Sourdough_bread_and_its_long_history",
    "```python\nprint('hello my dear old friend')\n```",
    "blorp zindle quat fremmish",
]  # fmt: skip


def item(prompt: Prompt, stated: str = "") -> Item:
    return Item(prompt, ("a", "b"), (Preference(0, 1),), "s", "0", language=stated)


@pytest.mark.parametrize("code", SENTENCES)
def test_a_question_is_known_by_its_language(code: str) -> None:
    assert detect_languages([SENTENCES[code]]) == [code]


@pytest.mark.parametrize("text", UNDECIDED)
def test_short_texts_code_figures_and_links_are_undecided(text: str) -> None:
    assert detect_languages([text]) == [""]


def test_prose_beside_code_and_links_decides() -> None:
    texts = [
        "```\nfor x in range(3): print(x)\n```\nWarum gibt das Programm nur drei Zahlen aus?",
        "Pourquoi cette page https://example.org/some/english/words ne s'ouvre-t-elle pas ?",
        "用JS编写归并排序函数",
        "请参考 Kataller Toyama（カターレ富山）是日本一家足球俱乐部，成立于二零零七年，主场位于富山县富山市的体育场",
    ]
    assert detect_languages(texts) == ["de", "fr", "zh", "zh"]


def test_a_lone_surrogate_is_no_obstacle() -> None:
    assert detect_languages(["\ud800 " + SENTENCES["de"]]) == ["de"]


def test_equal_texts_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(language, "_detect", lambda text: seen.append(text) or "xx")
    assert detect_languages(["a", "b", "a"]) == ["xx"] * 3
    assert seen == ["a", "b"]


def test_an_items_language_is_that_of_what_the_user_says_unless_it_is_stated() -> None:
    conversation = (Turn("system", SENTENCES["en"]), Turn("user", SENTENCES["fr"]), Turn("assistant", SENTENCES["de"]))
    items = [item(conversation), item(as_prompt(SENTENCES["de"]), "nl"), item((Turn("system", SENTENCES["sv"]),))]
    result = languages_of(items)
    assert [item.language for item in result] == ["fr", "nl", "sv"]
    assert result[1] is items[1]


def test_without_py3langid_everything_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_detect()
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    assert not can_detect()
    assert detect_languages(list(SENTENCES.values())) == [""] * len(SENTENCES)
    assert languages_of([item(as_prompt("Why?"))])[0].language == ""


@pytest.mark.shared_data
@pytest.mark.parametrize(("source", "code"), [("oasst-zh", "zh"), ("oasst1-en", "en")])
def test_people_of_one_language_are_recognised(shared_data: Path, source: str, code: str) -> None:
    comparisons = load_comparisons(shared_data / source).comparisons
    texts = [" ".join(turn.text for turn in c.prompt if turn.role == "user") for c in comparisons]
    result = detect_languages(texts)
    decided = [code for code in result if code]
    assert len(decided) > 0.98 * len(result)
    assert decided.count(code) > 0.98 * len(decided)
