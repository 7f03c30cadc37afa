"""The chat template that writes whole texts for a server."""

from pathlib import Path

import pytest

from prefrank.errors import BadInput
from prefrank.scoring.server_template import template_writing
from tests.tiny import chat_folder


@pytest.mark.parametrize("content", ["[]", "null", "5", '{"chat_template": [1]}', '{"bos_token": 5}', "[" * 5000])
def test_a_broken_tokenizer_of_a_server_template_is_one_line(tmp_path: Path, content: str) -> None:
    folder = chat_folder(tmp_path, "{{ messages[-1]['content'] }}")
    (folder / "tokenizer_config.json").write_text(content)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(BadInput) as error:
        template_writing(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("template", ["  ", "{% if messages | length > 1 %}x{% endif %}"])
def test_a_server_template_that_writes_every_reply_alike_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(BadInput, match=r"writes the same for every reply|writes nothing|no chat template"):
        template_writing(str(chat_folder(tmp_path, template)))
