"""The list of segments that are known to be stored in reversed depth order."""

import pytest

from inkbatch.data.segments.reversed_segments import known_reversed, read_reversed, reversed_segments
from inkbatch.errors import ConfigError

FIRST_LETTERS = {"20230925002745", "20230926164853"}
ONLY_INFER = {"20231224042141", "20231222233538"}
OF_2026 = {
    *("20260220214732-auto_grown_20260220144552896", "20260221022814-auto_grown_20260220174252405"),
    *("PHerc1447-w058", "PHerc1447-w060", "PHerc1447-w062"),
}


def said_by(word: str) -> set[str]:
    return {name for name, entry in reversed_segments().items() if any(word in tool for tool in entry.said_by)}


def test_every_published_list_is_there_with_who_said_so():
    assert said_by("Vesuvius-First-Letters") == FIRST_LETTERS
    assert len(said_by("inference_timesformer.py")) == 14
    assert said_by("infer.py of") == said_by("inference_timesformer.py") | ONLY_INFER
    assert said_by("villa") | said_by("ink-8um-v8in") == OF_2026
    assert reversed_segments().keys() == FIRST_LETTERS | said_by("infer.py of") | OF_2026
    assert "verso" in reversed_segments()


def test_a_segment_that_two_tools_flip_names_both():
    assert len(reversed_segments()["20231005123333"].said_by) == 2


def test_a_short_id_is_known_in_its_own_sample_alone():
    assert known_reversed("w058", "PHerc1447").segment == "PHerc1447-w058"
    assert known_reversed("w058", "PHerc0139") is None
    assert known_reversed("w058", None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: {a: b}\nsegments: {'1': [c]}", "segment 1: expected sources among"),
        ("sources: {a: b}\nsegments: {'1': []}", "got none"),
        ("sources: {a: b}\nsegments: {'../x': [a]}", "segment '../x'"),
        ("segments: {", "cannot be read"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, text, message):
    file = tmp_path / "list.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_reversed(file)


def test_ids_are_text_even_where_yaml_would_read_numbers(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("sources: {a: b}\nsegments: {20230925002745: [a]}", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reversed(file)
