import gzip
import json
import os
import random
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.backbones import tokenizer
from zerolabel.backbones.tokenizer import Tokenizer, byte_signs, normalise, read_merges, split
from zerolabel.errors import UsageError, WeightsError

SMALL = (("a", "t</w>"), ("c", "at</w>"), ("t", "h"), ("th", "e</w>"), ("a", "a"), ("aa", "a</w>"))
A, B, LAST = ord("a") - 33, ord("b") - 33, 256  # ids of signs, and of signs that end a word


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("don't", ["don", "'t"]),
        ("they're we've i'll it's i'd i'm", "they 're we 've i 'll it 's i 'd i 'm".split()),
        ("'sun", ["'s", "un"]),
        ("!'s", ["!'", "s"]),
        ("rock 'n' roll", ["rock", "'", "n", "'", "roll"]),
        ("route 66", ["route", "6", "6"]),
        ("mp3-player!?", ["mp", "3", "-", "player", "!?"]),
        ("½ ² Ⅷ", ["½", "²", "ⅷ"]),
        ("straße über", ["straße", "über"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),  # what can be composed is
        ("x\u0301y", ["x", "\u0301", "y"]),  # and a mark that cannot be is no letter
        ("猫と犬", ["猫と犬"]),
        ("🐈‍⬛🐕", ["🐈\u200d⬛🐕"]),
        ("<|endoftext|>", ["<|", "endoftext", "|>"]),
        ("a\tb\u2003c\x1cd", ["a", "b", "c", "\x1c", "d"]),
        ("", []),
        (" \u3000\n", []),
    ],
)
def test_texts_are_parted_as_by_clips_pattern(text, parts):
    assert split(normalise(text)) == parts


def test_texts_are_brought_to_one_form():
    assert normalise("  A\u2028 B\r\n\tC ") == "a b c"
    assert normalise("ΣΑΣ") == "σασ"
    assert normalise("A\u030angstro\u0308m") == "\u00e5ngstr\u00f6m"


def test_bytes_come_first_then_those_that_end_a_word_then_merges_then_start_and_end():
    made = Tokenizer(SMALL)
    assert (made.size, made.start, made.end) == (512 + 6 + 2, 518, 519)
    assert list(byte_signs().values())[:3] == ["!", '"', "#"]
    assert made.encode("ab") == [A, B + LAST]
    assert made.encode("at") == [512]
    assert made.encode("b cat the") == [B + LAST, 513, 515]
    signs = list(byte_signs())
    assert sorted(signs) == list(range(256))
    assert len(set(byte_signs().values())) == 256
    assert made.encode("é") == [signs.index(0xC3), signs.index(0xA9) + LAST]


def test_pairs_merge_in_the_order_of_the_list_and_from_the_left():
    made = Tokenizer(SMALL)
    assert made.encode("aab") == [516, B + LAST]
    assert made.encode("aaab") == [516, A, B + LAST]
    assert made.encode("aaa") == [517]
    assert made.encode("aaaab") == [516, 516, B + LAST]
    # "at" ends here by the first merge, before "a" could join its left neighbour.
    assert made.encode("aat") == [A, 512]
    assert Tokenizer(SMALL[::-1]).encode("aat") == [513, ord("t") - 33 + LAST]


def test_without_merges_it_is_a_tokenizer_of_bytes():
    made = Tokenizer()
    assert made.size == 514
    assert len(made.encode("a cat’s 🐈")) == 1 + 3 + 3 + 1 + 4


@given(st.text())
def test_nothing_is_lost_and_pieces_know_where_a_word_ends(text):
    made, signs = Tokenizer(SMALL), list(byte_signs())
    pieces = [*((b, False) for b in signs), *((b, True) for b in signs)]
    written = {sign: byte for byte, sign in byte_signs().items()}
    for left, right in SMALL:
        word = left + right
        pieces.append((word.removesuffix("</w>"), word.endswith("</w>")))
    words, word = [], b""
    for i in made.encode(text):
        piece, ends = pieces[i]
        word += bytes([piece]) if isinstance(piece, int) else bytes(written[s] for s in piece)
        if ends:
            words.append(word.decode())
            word = b""
    assert words == split(normalise(text))
    assert "".join(words) == normalise(text).replace(" ", "")
    assert made.encode(text) == made.encode(f"\n{normalise(text)}  ")  # remembered, and stable


def test_what_utf8_cannot_write_is_a_question_mark():
    assert Tokenizer().encode("a \ud800") == Tokenizer().encode("a ?")


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(tokenizer, "KEPT", 3)
    made = Tokenizer(SMALL)
    assert [made.encode(word) for word in "a b c d a cat cat".split()][-2:] == [[513], [513]]
    assert len(made._known) <= 3


def test_a_batch_is_rows_from_start_to_end():
    made = Tokenizer(SMALL)
    rows = made.batch(["cat", "the cat", "b"], context=5)
    assert rows.dtype == torch.int64
    assert rows.tolist() == [
        [518, 513, 519, 0, 0],
        [518, 515, 513, 519, 0],
        [518, B + LAST, 519, 0, 0],
    ]
    assert rows.argmax(1).tolist() == [2, 3, 2]
    assert made.batch([]).shape == (0, 77)
    assert made.batch(["cat " * 75]).shape == (1, 77)


def test_special_tokens_cannot_be_written():
    made = Tokenizer()
    ids = made.encode("<|startoftext|> cat <|endoftext|>")
    assert made.start not in ids
    assert made.end not in ids


@pytest.mark.parametrize("text", ["", "  ", "\u3000\n"])
def test_a_text_without_tokens_is_refused(text):
    with pytest.raises(UsageError, match="empty"):
        Tokenizer().batch(["cat", text])


def test_a_text_that_is_too_long_is_refused_by_name():
    with pytest.raises(UsageError, match=r"'the cat cat' has 3 tokens, .* at most 2\. Shorten"):
        Tokenizer(SMALL).batch(["the cat", "the cat cat"], context=4)
    with pytest.raises(UsageError, match=r"has 76 tokens, .* at most 75") as caught:
        Tokenizer(SMALL).batch(["cat " * 76])
    assert len(str(caught.value)) < 250


# Files of merges.


def lines(pairs):
    return "".join(f"{left} {right}\n" for left, right in pairs)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["#version: 0.2\n", ""])
def test_a_list_of_merges_is_read(head, end, tmp_path):
    path = tmp_path / "merges.txt"
    pairs = (*SMALL, ("\u2028", "#"), ("#", "#</w>"))
    path.write_bytes((head + lines(pairs)).replace("\n", end).encode())
    assert read_merges(path) == pairs


@pytest.mark.parametrize("as_pairs", [True, False])
def test_the_json_of_transformers_is_read(as_pairs, tmp_path):
    merges = [list(p) if as_pairs else " ".join(p) for p in SMALL]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "BPE", "merges": merges}}))
    assert read_merges(path) == SMALL


@pytest.mark.parametrize("packed", [True, False])
def test_of_openais_list_only_what_clip_uses_is_read(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "MERGES", 4)
    content = ('"bpe_simple_vocab_16e6.txt#version: 0.2\n' + lines(SMALL)).encode()
    path = tmp_path / "vocabulary"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_merges(path) == SMALL[:4]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("merges.txt", b""),
        ("merges.txt", b"#version: 0.2\n"),
        ("merges.txt", b"a b c\n"),
        ("merges.txt", b"\xff\xfe\xff"),
        ("merges.txt.gz", b"\x1f\x8bcut"),
        ("merges.txt.gz", gzip.compress(lines(SMALL).encode(), mtime=0)[:-9]),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"model": {"merges": [["a", 1]]}}'),
        ("tokenizer.json", b'{"model": {"merges": [1]}}'),
        ("missing.txt", None),
    ],
)
def test_files_without_merges_are_refused(name, content, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_merges(path)


# Against transformers, with the published list.

PICKED = [
    *("don't", "DON'T", "it's'", "'s's", "''s", "they'll've", "rock'n'roll", "o'clock's", "’s"),
    *("1,000.50", "x86_64", "３４", "½", "٣", "Ⅷ", "10²"),
    *("🐈‍⬛ 👩🏽‍🚀🇫🇷", "I❤️NY", "cafe\u0301 CAFÉ", "Å \u212b A\u030a", "ﬁ", "ẞ ß", "İı", "ΣΑΣ Σ"),
    *(
        "中文和English混合",
        "東京タワー",
        "한국어 한글",
        "한",
        "हिन्दी",
        "ไทย",
        "עִבְרִית",
        "العَرَبِيَّة",
        "ქართული",
    ),
    *("a\u00a0b\u2003c\u200bd\u3000e", "tab\tnew\nline", "\x1c\x1d", "\x00", "\ufeffx", "\u00ad"),
    *("", " ", "...", "!!!???", "a-b--c", "@user #tag $5 %", "<b>&amp;</b>", "C:\\x\\y.png", "“q”"),
    *("supercalifragilisticexpialidocious" * 3, "a" * 300, "graffiti of a tv monitor."),
]


def generated(count):
    """Deterministic texts; signs that every supported Python knows alike."""
    draw = random.Random(7)
    old = unicodedata.ucd_3_2_0.category
    signs = [chr(c) for c in range(0x20, 0x30000) if old(chr(c)) not in ("Cn", "Cs")]
    marks = [sign for sign in signs if old(sign) == "Mn"]
    ascii_ = [chr(c) for c in range(0x20, 0x7F)]
    words = "photo of the a big dog's weren't 2nd x-ray Über naïve".split()
    kinds = [signs, ascii_, [*"aeiouncAEO", *marks, " "], [*words, " ", " ", "'", "!"]]
    for i in range(count):
        pool = kinds[i % 4] if i % 5 else signs + 4000 * ascii_
        yield "".join(draw.choices(pool, k=draw.randint(1, 30)))


@pytest.fixture(scope="module")
def published():
    folder = os.environ.get("ZEROLABEL_DATA")
    path = Path(folder or ".") / "clip" / "bpe_simple_vocab_16e6.txt.gz"
    if not folder or not path.is_file():
        pytest.skip("CLIP's vocabulary is not here")
    return read_merges(path)


@pytest.fixture(scope="module")
def whole(published):
    return Tokenizer(published)


@pytest.mark.slow
def test_ids_are_those_of_transformers(published, whole):
    transformers = pytest.importorskip("transformers")
    assert (whole.size, whole.start, whole.end) == (49408, 49406, 49407)
    vocabulary = {**whole._ids, "<|startoftext|>": 49406, "<|endoftext|>": 49407}
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=list(published))
    texts = [*PICKED, *generated(1000)]
    assert len(set(texts)) > 1000
    for text in texts:
        assert whole.encode(text) == theirs(text).input_ids[1:-1], repr(text)
    short = [text for text in texts if 0 < len(whole.encode(text)) <= 75]
    assert len(short) > 900
    rows = whole.batch(short)
    for text, row in zip(short, rows, strict=True):
        ids = theirs(text).input_ids
        assert row[: len(ids)].tolist() == ids
        assert not row[len(ids) :].any()


def test_known_ids_of_the_published_list(published, whole):
    assert len(published) == tokenizer.MERGES
    assert whole.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert whole.encode("hello world!") == [3306, 1002, 256]


@pytest.mark.slow
@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_the_whole_list_loses_nothing(whole, text):
    pieces = list(whole._ids)
    read = "".join(pieces[i] for i in whole.encode(text))
    written = {sign: byte for byte, sign in byte_signs().items()}
    words = [bytes(written[s] for s in word).decode() for word in read.split("</w>")[:-1]]
    assert words == split(normalise(text))
