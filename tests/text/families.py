"""Chat templates of the shapes that published models have, in our own words: name -> (control tokens, template)."""

_LOOP = "{% for m in messages %}"
_END = "{% endfor %}"
FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "llama 3": (
        ("<s>", "<|header|>", "<|/header|>", "<|eot|>"),
        _LOOP + "{% set text = '<|header|>' + m.role + '<|/header|>\n\n' + m.content | trim + '<|eot|>' %}"
        "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}" + _END,
    ),
    "qwen 2.5": (
        ("<|im_start|>", "<|im_end|>"),
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou were made by someone.<|im_end|>\n{% endif %}"
        + _LOOP + "{% if m.role == 'tool' %}{% if loop.previtem is not defined or loop.previtem.role != 'tool' %}"
        "<|im_start|>user{% endif %}\n<tool_response>\n{{ m.content }}\n</tool_response>"
        "{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>\n{% endif %}"
        "{% elif m.tool_calls %}<|im_start|>assistant\n{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>\n"
        "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>"
        "{% endfor %}<|im_end|>\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}" + _END,
    ),
    "qwen 3": (
        ("<|im_start|>", "<|im_end|>"),
        "{% set ns = namespace(last=0) %}" + _LOOP
        + "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}" + _END
        + _LOOP + "{% set content, thought = m.content, '' %}"
        "{% if m.role == 'assistant' and '</think>' in content %}"
        "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
        "{{ content.lstrip('\n') }}{% else %}{{ content }}{% endif %}<|im_end|>\n" + _END,
    ),
    "gemma": (
        ("<s>", "<start_of_turn>", "<end_of_turn>"),
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
        + _LOOP + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}"
        "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
        "<end_of_turn>\n" + _END,
    ),
    "mistral": (
        ("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE]"),
        "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}"
        "{% else %}{% set system, rest = '', messages %}{% endif %}{{ bos_token }}"
        "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
        "{% endif %}{% if m.role == 'user' %}[INST] {% if loop.last or loop.index0 == rest | length - 2 %}"
        "{% if system %}{{ system }}\n\n{% endif %}{% endif %}{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    ),
    "llama 2": (
        ("<s>", "</s>"),
        "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}"
        "{% else %}{% set system, rest = '', messages %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
        "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ m.content | trim }} [/INST]"
        "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}",
    ),
    "chatml": (("<|im_start|>", "<|im_end|>"), _LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + _END),
    "zephyr": (("</s>",), _LOOP + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n" + _END),
    "phi 3": (("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
              _LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}" + _END + "{{ eos_token }}"),
    "tulu": (("</s>",), _LOOP + "<|{{ m.role }}|>\n{{ m.content }}"
             "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last %}\n{% endif %}" + _END),
    "deepseek": (
        ("<s>", "</s>", "<｜User｜>", "<｜Assistant｜>"),
        "{{ bos_token }}" + _LOOP + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<｜User｜>"
        "{{ m.content }}{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}"
        + _END,
    ),
}  # fmt: skip
WITHOUT_SYSTEM = ("gemma",)
