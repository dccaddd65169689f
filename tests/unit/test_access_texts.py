"""The text of tokens."""

from __future__ import annotations

import re

import pytest

from distci.access.texts import PATTERN, Sort, digest_of, id_of, masked, new_text, sort_of
from distci.errors import NotAuthenticated


@pytest.mark.parametrize("sort", Sort)
def test_a_token_says_what_it_is_for(sort: Sort) -> None:
    assert sort_of(new_text(sort)) is sort


def test_no_two_tokens_are_the_same_and_all_bits_are_used() -> None:
    texts = {new_text(Sort.ACCESS) for _ in range(1000)}
    assert len(texts) == 1000
    assert new_text(Sort.ACCESS, lambda count: b"\xff" * count) != new_text(
        Sort.ACCESS, lambda count: b"\x7f" + b"\xff" * (count - 1)
    )


@pytest.mark.parametrize("position", range(56))
def test_a_mistyped_token_is_told_without_looking_it_up(position: int) -> None:
    text = new_text(Sort.ACCESS)
    other = "b" if text[position] == "a" else "a"
    with pytest.raises(NotAuthenticated):
        sort_of(text[:position] + other + text[position + 1 :])


@pytest.mark.parametrize("text", ["", "Bearer x", "distci_" + "a" * 49, "ä" * 56, "\x00", "distci_" + "a" * 10**6])
def test_what_is_no_token_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        sort_of(text)
    assert not text or text not in str(refused.value)


def test_a_token_of_one_sort_is_none_of_another() -> None:
    text = new_text(Sort.ACCESS)
    with pytest.raises(NotAuthenticated):
        sort_of(text.replace("distci_", "distciw_"))


def test_tokens_are_found_in_any_text_and_masked() -> None:
    text = new_text(Sort.WORKER)
    assert masked(f"curl -H 'Authorization: Bearer {text}' x") == "curl -H 'Authorization: Bearer ***' x"
    assert PATTERN.search("no token_at all, distci_run, distci_worker") is None


def test_an_id_says_nothing_of_the_text() -> None:
    text = new_text(Sort.ACCESS)
    assert re.fullmatch("[0-9a-f]{12}", id_of(digest_of(text)))
    assert id_of(digest_of(text)) not in text
