"""Tiny tokenizer folders of every kind, with control tokens in them."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.tiny import CORPUS, wordpiece_folder

SPECIALS = ("<s>", "</s>", "<unk>", "<pad>", "[SEP]", "<|im_end|>")
MARKUP = ("<think>", "<tool_call>", "[INST]")
KINDS = ("wordpiece", "unigram", "bpe", "byte-level", "ignoring merges", "word level", "byte fallback")


def tokenizer_of(kind: str, extra: tuple[str, ...] = ()) -> Tokenizer:
    """A tokenizer whose vocabulary, and not only its added tokens, holds control strings, and texts that spell them."""
    letters = sorted({*"".join(CORPUS), *"".join(SPECIALS), *"<>[]|/_x0A", *"abcdefghijklmnopqrstuvwxyz"} - {" "})
    words = ["hello", "there", "IN", "ST", "SEP", "th", "ink", "im", "end"]
    pieces = [*SPECIALS, "▁", *letters, *words, *(f"▁{word}" for word in words)]
    ids = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("<", "s"), ("<s", ">"), ("[", "S"), ("S", "E"), ("SE", "P"), ("[", "SEP"), ("[SEP", "]")]
    if kind == "wordpiece":
        ids = {p: n for n, p in enumerate(dict.fromkeys([*SPECIALS, *letters, *(f"##{c}" for c in letters)]))}
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif kind == "word level":
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif kind in ("unigram", "byte fallback"):
        fallback = kind == "byte fallback"
        bytes_of = [(f"<0x{n:02X}>", 0.0) for n in range(256)] if fallback else []
        scored = [(piece, 0.0 if piece in SPECIALS else -2.0 - len(piece) / 9) for piece in ids]
        tokenizer = Tokenizer(models.Unigram([*scored, *bytes_of], unk_id=2, byte_fallback=fallback))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "bpe":
        for first, second in merges:
            ids.setdefault(first + second, len(ids))
        tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "ignoring merges"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "ignoring merges")
        tokenizer.decoder = decoders.ByteLevel()
        names = ["<s>", "<unk>", "[SEP]"]
        trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, special_tokens=names)
        tokenizer.train_from_iterator([*CORPUS, "[SEP] <s>", "<think>"], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in (*MARKUP, *extra)])
    return tokenizer


def folder_of(
    folder: Path, tokenizer: Tokenizer, *, template: str | None = None, tokenizer_config: dict | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    config |= {"unk_token": "<unk>", "pad_token": "<pad>"} | (tokenizer_config or {})
    config |= {} if template is None else {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def pair_folder(folder: Path, family: str) -> Path:
    """A WordPiece folder with the pair encoding of a family and its class's names."""
    wordpiece_folder(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    pairs = {
        "bert": "[CLS] $A [SEP] $B:1 [SEP]:1", "roberta": "[CLS] $A [SEP] [SEP] $B [SEP]",
        "funnel": "[CLS]:2 $A [SEP] $B:1 [SEP]:1", "xlnet": "$A [SEP] $B:1 [SEP]:1 [CLS]:2",
    }  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pairs[family], special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def configure(folder: Path, **changes: object) -> Path:
    """Change tokenizer_config.json; None takes a key out."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder
