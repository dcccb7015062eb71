import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolabel.data import words as module
from zerolabel.data.spaces import SPACES, space
from zerolabel.data.words import TEMPLATES, Words, parse_words, templates, words_of
from zerolabel.errors import UsageError

THREE = Words(
    ("car", "bus", "person", "rider", "sky"), (0, 0, 1, 1, 2), ("vehicle", "person", "sky")
)


@pytest.mark.parametrize(
    "text",
    [
        "vehicle: car | bus, person | rider, sky",
        "vehicle:car|bus;person|rider;sky",
        "vehicle: car | bus\nperson | rider\nsky",
        " vehicle : car|  bus |,, person|rider ;\n\n; sky, ",
        'vehicle: "car" | "bus", "person": person | rider, "sky"',
        '"vehicle" : car | bus | Car | bus\r\n  "person" | rider \r\nsky : sky',
    ],
)
def test_a_list_of_classes_is_read(text):
    assert parse_words(text) == THREE


def test_white_space_is_joined_and_case_kept():
    found = parse_words("  Dining \t table ,\u00a0TV\u2003monitor")
    assert found.words == found.names == ("Dining table", "TV monitor")
    assert found.groups == (0, 1)


def test_what_holds_signs_goes_in_quotes():
    found = parse_words('"table, wooden": "a|b" | c"d | "e ""f""", "voc20"; "x:y"')
    assert found.names == ("table, wooden", "voc20", "x:y")
    assert found.words == ("a|b", 'c"d', 'e "f"', "voc20", "x:y")


@pytest.mark.parametrize("text", ["", "  ", ",;\n,", '""', "| |", '"", ""'])
def test_an_empty_list_is_refused(text):
    with pytest.raises(UsageError, match="No class in the list"):
        parse_words(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat, dog, Cat", "Class 'Cat' is there twice"),
        ("cat, cafe\u0301, Caf\u00e9", "Class 'Caf\u00e9' is there twice"),
        ("pet: cat | dog, wild: wolf | DOG", "'DOG' belongs to two classes of the list, 'pet' and"),
        ("pet: cat, cat", "'cat' belongs to two classes of the list, 'pet' and 'cat'"),
        ("vehicle: , cat", "'vehicle' has no word after the colon"),
        ("cat, a: b: c", "Expected classes such as"),
        ("a | b: c", "Expected classes such as"),
        (": cat", "Expected classes such as"),
        ('dog, "cat', "found ' \"cat'"),
        ('dog,  "cat" food, fish', "goes in double quotes"),
        ("words.txt", "is not a file"),
        ("no/such/words.CSV", "is not a file"),
    ],
)
def test_what_is_not_clear_is_refused(text, message):
    with pytest.raises(UsageError) as caught:
        parse_words(text)
    assert message in str(caught.value)


def test_a_name_may_be_a_word_of_another_class():
    assert parse_words("car: automobile, vehicle: car").names == ("car", "vehicle")


# Files.


def test_a_file_has_a_class_per_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(
        "\ufeff# what to find\r\n\r\n  table, wooden\r\na; b\r\n  # no\r\nC#: c | d, e\r\n"
        '"#1" | "x: y"\r\n'.encode()
    )
    found = parse_words(f" {path} ")
    assert found.names == ("table, wooden", "a; b", "C#", "#1")
    assert found.words == ("table, wooden", "a; b", "c", "d, e", "#1", "x: y")
    assert found.groups == (0, 1, 2, 2, 3, 3)
    assert parse_words(found.text) == found


@pytest.mark.parametrize(
    "content",
    [
        'name,words\nvehicle,car | bus\nperson,"person|rider"\nsky,\n',
        "# classes\nid, words , name\n7,car|bus|,vehicle\n8,person|rider,person\n9,,sky\n10,,\n",
    ],
)
def test_a_table_has_a_column_of_names(content, tmp_path):
    path = tmp_path / "words.csv"
    path.write_text(content)
    assert parse_words(str(path)) == THREE
    path.write_text('name\n"table, wooden"\nsky: blue\nshort,\n')
    assert parse_words(str(path)).words == ("table, wooden", "sky: blue", "short")


def test_a_file_needs_no_ending_where_a_folder_stands_before_it(tmp_path, monkeypatch):
    (tmp_path / "cat").write_text("dog\n")
    monkeypatch.chdir(tmp_path)
    assert parse_words("./cat").words == ("dog",)
    assert parse_words("cat").words == ("cat",)  # though there is a file of this name
    assert parse_words("and/or").words == ("and/or",)
    assert parse_words("a/" + 4000 * "b").names == ("a/" + 4000 * "b",)
    assert parse_words("a\0/b").names == ("a\0/b",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.txt", b"", "No class in"),
        ("words.txt", b"# a\n", "No class in"),
        ("words.txt", b"\xff\xfe\xff", "cannot be read"),
        ("words.txt", b'"cat\n', "double quotes"),
        ("words.txt", b"cat\ncat\n", "twice in"),
        ("words.csv", b"", "(none)"),
        ("words.csv", b"class,words\ncat,\n", "class, words; expected name"),
        ("words.csv", b"name,words\n,cat\n", "words without a name: cat"),
    ],
)
def test_files_without_classes_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        parse_words(str(tmp_path / name))
    assert message in str(caught.value)
    assert name in str(caught.value) or "quotes" in message


# Label spaces.


@pytest.mark.parametrize("name", SPACES)
def test_the_classes_of_every_label_space_are_read(name):
    found = parse_words(name)
    assert found.names == space(name).classes
    assert found.words == space(name).prompts
    assert found.groups == tuple(range(len(found.names)))
    assert parse_words(found.text) == found


def test_label_spaces_have_the_words_that_maskclip_and_reclip_give_to_clip():
    voc = parse_words("voc20").words
    assert (len(voc), voc[0], voc[-1]) == (20, "airplane", "tv monitor")
    assert {"dining table", "motorbike", "potted plant", "sofa"} < set(voc)
    coarse = parse_words("coco27").words
    assert (len(coarse), coarse[:3]) == (27, ("electronic", "appliance", "food things"))
    assert {"furniture stuff", "raw material", "solid", "structural"} < set(coarse)
    context = parse_words("context59").words
    assert (len(context), context[3], context[-1]) == (59, "bedclothes", "wood")
    scenes = parse_words("ade150").words
    assert (scenes[7], scenes[8], scenes[-1]) == ("bed", "windowpane", "flag")
    assert parse_words("cityscapes19").words[8] == "vegetation"


# What is written is read.


def part():
    signs = st.sampled_from(',;:|"#/\\. \n') | st.characters(codec="utf-8")
    plain = st.text(signs, max_size=8) | st.sampled_from(["voc20", "a.txt", "b.CSV", "~/c", '"'])
    return plain.map(lambda text: " ".join(text.split())).filter(bool)


def made(classes):
    entries, seen = [], set()
    for name, own in classes:
        kept = [word for word in own or [name] if module._alike(word) not in seen]
        kept = list({module._alike(word): word for word in kept}.values())
        if kept and module._alike(name) not in {module._alike(n) for n, _ in entries}:
            entries.append((name, kept))
            seen |= set(map(module._alike, kept))
    pairs = [(word, k) for k, (_, own) in enumerate(entries) for word in own]
    words, groups = zip(*pairs, strict=True)
    return Words(words, groups, tuple(name for name, _ in entries))


@given(st.lists(st.tuples(part(), st.lists(part(), max_size=3)), min_size=1, max_size=4))
def test_what_is_written_is_read_as_it_was(classes):
    words = made(classes)
    assert parse_words(words.text) == words
    assert "\n" not in words.text


@given(st.text(st.sampled_from('ab,;:|"\n #')))
def test_what_is_read_is_written_alike(text):
    try:
        words = parse_words(text)
    except UsageError:
        return
    assert parse_words(words.text) == words
    assert all(word == " ".join(word.split()) != "" for word in words.words + words.names)
    assert list(words.groups) == sorted(words.groups)
    assert set(words.groups) == set(range(len(words.names)))


def test_the_text_is_as_a_user_would_write_it():
    assert THREE.text == "vehicle: car | bus, person | rider, sky"
    assert parse_words('"a,b": c').text == '"a,b": c'


def test_names_of_any_kind_are_their_own_words():
    names = ("table, wooden", "a: b", "voc20", 'x" y', "words.txt")
    found = words_of(names)
    assert (found.words, found.names, found.groups) == (names, names, (0, 1, 2, 3, 4))
    assert parse_words(found.text) == found
    for wrong in ([], ["cat", " "], ["cat", "Cat"]):
        with pytest.raises(UsageError):
            words_of(wrong)


# Sentences.


def test_there_are_85_sentences():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 85
    assert all(one.count("{}") == 1 and one == one.strip() for one in TEMPLATES)
    assert TEMPLATES[0] == "a bad photo of a {}."
    assert TEMPLATES[79] == "a tattoo of the {}."
    assert all("in the scene" in one for one in TEMPLATES[80:])
    assert [len(templates(name)) for name in ("all", "imagenet", "plain")] == [85, 80, 1]
    assert templates("plain")[0] in templates("imagenet")
    with pytest.raises(UsageError, match="Did you mean 'plain'"):
        templates("plane")


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path))
    Path(tmp_path / "words.txt").write_text("cat")
    assert parse_words("~/words.txt").words == ("cat",)


@pytest.mark.parametrize("name", ["voc21", "voc20", "coco27"])
def test_classes_of_a_label_space_are_asked_for_as_it_says(name):
    known = space(name)
    assert words_of(known.classes) == parse_words(name)
    assert words_of(known.classes).words == tuple(known.prompts)
    assert words_of(known.classes[::-1]).words == tuple(known.classes[::-1])
