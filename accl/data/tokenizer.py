"""Tokenizers, from a model's folder or trained on the questions.

A `Tokenizer` is a function of the bytes of its files, so that a saved copy gives the same ids on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accl.data.cache import Cache
from accl.errors import ConfigError, first_line

SPM = "spm.model"
FAST = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
# The special tokens of an encoder's input, by their key in the settings, and their usual names.
SPECIAL = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}

_Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Tokenizer:
    """Encodes texts into ids of a fixed vocabulary.

    Attributes:
        cls_id: id at the start of an input. sep_id: id after each of its parts. pad_id: id of padding.
        vocab_size: one more than the largest id.
        files: content of the files that the tokenizer is made from, by name.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    vocab_size: int
    files: dict[str, bytes] = field(repr=False)
    _encode: _Encode = field(repr=False, compare=False)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens; text that spells one is encoded as text."""
        return self._encode(texts) if texts else []

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits over the files, which equal tokenizers share."""
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(self.files):
            digest.update(f"{name}\x1f{len(self.files[name])}\x1f".encode())
            digest.update(self.files[name])
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the files to a folder, to be read back by `load_tokenizer`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model's folder.

    ``spm.model`` (DeBERTa-v2 and v3) is run by sentencepiece itself: transformers 5 rebuilds it without the
    normalisation that the model was trained with (nmt_nfkc: ligatures, superscripts, full-width digits).

    Raises:
        ConfigError: the folder has no tokenizer, or one without the special tokens that an encoder needs.
    """
    settings = _read_json(folder / SETTINGS)
    if (folder / SPM).is_file():
        return _from_spm(folder, (folder / SPM).read_bytes(), settings)
    if (folder / FAST).is_file():
        names = _special_names(_read_json(folder / "special_tokens_map.json") | settings)
        if len(names) == 3:
            return _from_fast(folder, (folder / FAST).read_text(encoding="utf-8"), names)
    return _from_transformers(folder)


def train_tokenizer(texts: Iterable[str], vocab_size: int, pad_id: int = 0) -> Tokenizer:
    """Train a lower-casing byte-pair tokenizer on texts, for models that start from scratch.

    Equal texts give equal ids on every machine, which WordPiece training does not guarantee. ``vocab_size`` is an upper
    bound: merging ends when every word is one token. ``pad_id`` is the id of padding, 0 or 1.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    fast = Fast(models.BPE(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation("isolated")]
    )
    special = ["[CLS]", "[SEP]", "[UNK]"]
    special.insert(pad_id, "[PAD]")
    fast.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    return _from_fast(Path(), fast.to_str(), SPECIAL)


def trained_tokenizer(texts: Sequence[str], vocab_size: int, cache: Cache, pad_id: int = 0) -> Tokenizer:
    """Train a tokenizer as `train_tokenizer` does, or load it if the same texts were trained on before.

    Args:
        cache: of trained tokenizers, which are named by what they are trained on.
    """
    from tokenizers import __version__

    padding = f"\x1f{pad_id}" if pad_id else ""
    digest = hashlib.blake2b(f"{__version__}\x1f{vocab_size}{padding}".encode(), digest_size=16)
    for text in texts:
        digest.update(f"\x1f{len(text)}\x1f{text}".encode())
    return cache.load_or_make(
        f"tokenizer-{digest.hexdigest()}.json",
        make=lambda: train_tokenizer(texts, vocab_size, pad_id),
        encode=lambda tokenizer: tokenizer.files[FAST],
        decode=lambda content: _from_fast(Path(), content.decode(), SPECIAL),
    )


def _from_spm(folder: Path, model: bytes, settings: dict[str, Any]) -> Tokenizer:
    import sentencepiece

    if settings.get("split_by_punct"):
        raise ConfigError(f"{folder / SETTINGS} asks for split_by_punct, which accl cannot do.", "Use another model.")
    try:
        spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ConfigError(f"{folder / SPM} is no sentencepiece model.", "Fetch it again.") from error
    lower = bool(settings.get("do_lower_case"))

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = spm.encode([text.lower() for text in texts] if lower else list(texts))
        return ids

    names = SPECIAL | _special_names(settings)
    ids = [spm.piece_to_id(name) for name in names.values()]
    for token, (key, name) in zip(ids, names.items(), strict=True):
        if spm.id_to_piece(token) != name:
            raise ConfigError(f"{folder / SPM} has no piece {name} ({key}).", "Use another model.")
    files = {SPM: model, SETTINGS: json.dumps({**names, "do_lower_case": lower}, sort_keys=True).encode()}
    cls_id, sep_id, pad_id = ids
    return Tokenizer(cls_id, sep_id, pad_id, vocab_size=spm.get_piece_size(), files=files, _encode=encode)


def _from_fast(folder: Path, text: str, names: dict[str, str]) -> Tokenizer:
    from tokenizers import Tokenizer as Fast

    try:
        fast = Fast.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{folder / FAST} cannot be read: {error}", "Fetch or save it again.") from error
    # A published file may carry the length it was trained at.
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    ids: list[int] = []
    for key, name in names.items():
        token = fast.token_to_id(name)
        if token is None:
            raise ConfigError(f"{folder / FAST} has no token {name} ({key}).", "Use another model.")
        ids.append(token)
    cls_id, sep_id, pad_id = ids

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    size = max(fast.get_vocab(with_added_tokens=True).values()) + 1
    files = {FAST: text.encode(), SETTINGS: json.dumps(names, sort_keys=True).encode()}
    return Tokenizer(cls_id, sep_id, pad_id, vocab_size=size, files=files, _encode=encode)


def _from_transformers(folder: Path) -> Tokenizer:
    """Load any other vocabulary, through transformers' conversion to a fast tokenizer."""
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        text = slow.backend_tokenizer.to_str()
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        hint = f"Put {SPM} or {FAST} with {SETTINGS} beside config.json."
        raise ConfigError(f"{folder} has no usable tokenizer: {first_line(error)}", hint) from error
    names = {key: getattr(slow, key) for key in SPECIAL}
    missing = [key for key, name in names.items() if not name]
    if missing:
        raise ConfigError(f"The tokenizer in {folder} has no {', '.join(missing)}.", "Use an encoder, such as BERT.")
    return _from_fast(folder, text, {key: str(name) for key, name in names.items()})


def _special_names(settings: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens that the settings name; each is text, or an object with `content`."""
    values = {key: settings.get(key) for key in SPECIAL}
    named = {key: value.get("content") if isinstance(value, dict) else value for key, value in values.items()}
    return {key: name for key, name in named.items() if isinstance(name, str) and name}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path} is no valid JSON.", "Fetch or save it again.") from error
    return content if isinstance(content, dict) else {}
