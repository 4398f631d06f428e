"""Public text uses the words of the field, and American spelling: here are the phrases not to write."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What not to write, as a regular expression in which a blank stands for any white space: what to write in its place.
WORDS = {
    r"held(-| |)out": "validation, or test",
    "group moves": "group acts on",
    "moved by": "the image under",
    "moves (x|events|the event|an event)": "acts on",
    "a look(?!-up)": "a validation",
    "looks (at|without)": "checks; validations without",
    "(two|these|many|all|between) looks": "validations",
    "looked at": "scored, or checked",
    "turned": "rotated, or acted on",
    r"turns(?!\s[^.]{0,80}\binto\b)": "rotations, or acts on",
    "(quarter|half)-turns?": "rotation by 90 (180) degrees",
    "(hidden|trainable|free|learnable|latent) numbers?": "features, or parameters",
    r"\d[\d,]* numbers": "components, entries, features or values",
    "numbers (a|an|of an?|in an?) (event|field|row|entry|pixel)": "components, entries, features or values",
    "mask belongs": "the mask is true",
    "caps?": "bound, or max_log_scale",
    "capped": "bounded",
    "(cheap|costly) (way|direction)s?": "the direction of one pass (of several passes)",
    "cheap in one direction": "one pass in one direction",
    "backwards": "inverse",
    "the other way (a)?round": "in the other order, or direction",
    "says who": "name it",
    "for ever": "without end",
    "(told|tell|tells|telling) (them )?apart": "distinguished",
}
_STEMS = (
    r"\w*initial|\w*quant|\w*normal|optim|parametr|regular|general|symmetr|minim|maxim|factor|diagonal|discret|summar"
    "|recogn|organ|real|special|visual|util|serial|standard|orthogonal"
)
BRITISH = {
    rf"({_STEMS})is(e|ed|es|er|ing|ation)s?": "-ize",
    r"\w*(behaviour|neighbour|colour|favour|honour)\w*": "-or",
    r"\w*centre[sd]?|centring": "center",
    r"(modell|labell|cancell|travell|channell)(ed|ing|er)|\w*labell(ed|ing)": "one l",
    "analys(e|ed|es|ing)": "analyze",
    "grey": "gray",
    "artefacts?": "artifact",
    "(learnt|spelt|whilst|licence|catalogue|programme)": "learned, spelled, while, license, catalog, program",
}


def pattern(phrase: str) -> re.Pattern[str]:
    """The phrase as whole words, in any case, with any white space (or the # of a comment) where it has a blank."""
    return re.compile(r"(?<!\w)(?:" + phrase.replace(" ", r"[\s#]+") + r")(?!\w)", re.IGNORECASE)


PATTERNS = {pattern(phrase): advice for phrase, advice in (WORDS | BRITISH).items()}

# Where an old name has to be written: what reads old files and accepts old names, and the list of changes.
EXEMPT = {
    "CHANGELOG.md",
    "benchmarks/recipes.py",
    "pyro_gflows/deprecation/forms.py",
    "pyro_gflows/deprecation/names.py",
    "pyro_gflows/infer.py",
    "pyro_gflows/serialization/migrations.py",
    "pyro_gflows/training/checkpoint.py",
}

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "docs/*.md"]
CODE = ["pyro_gflows/**/*.py", "benchmarks/**/*.py", "tutorials/*.py"]


def files(patterns: list[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if name(path) not in EXEMPT]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def strings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings and string constants of a Python file, and the text cells of a tutorial, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for cell in re.finditer(r"^# %% \[markdown\]\n((?:#.*\n)+)", source, re.MULTILINE):
        yield source.count("\n", 0, cell.start(1)) + 1, cell[1]


def found(text: str, line: int = 1) -> list[tuple[int, str, str]]:
    """Every banned phrase of a text that begins on a line: its line, the phrase, and what to write."""
    return [
        (line + text.count("\n", 0, match.start()), " ".join(match[0].split()), advice)
        for pattern, advice in PATTERNS.items()
        for match in pattern.finditer(text)
    ]


def report(path: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    rows = sorted({row for line, text in texts for row in found(text, line)})
    return [f"{name(path)}:{line}: {phrase!r}: {advice}" for line, phrase, advice in rows]


def test_the_pages_speak_the_words_of_the_field():
    rows = [row for path in files(PAGES) for row in report(path, iter([(1, path.read_text(encoding="utf-8"))]))]
    assert not rows, "\n" + "\n".join(rows)


def test_the_docstrings_and_messages_speak_the_words_of_the_field():
    rows = [row for path in files(CODE) for row in report(path, strings(path.read_text(encoding="utf-8")))]
    assert not rows, "\n" + "\n".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        "the held-out images",
        "How the\n    group moves x",
        "Turned by 45 degrees",
        "quarter-turns",
        "64 numbers an event",
        "a cap of 30",
        "dequantisation",
        "the centre",
        "neighbouring",
        "# digits, each\n# turned",
    ],
)
def test_a_banned_phrase_is_found(text):
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "what is returned, in turn",
        "a capacity, captured",
        "a look-up table",
        "the number of random numbers",
        "the memory belongs to the distribution",
        "raise a noise; otherwise precise, a premise",
        "a center, a neighbor",
        "this moves on",
    ],
)
def test_ordinary_words_are_not(text):
    assert not found(text)


def test_a_phrase_is_reported_with_its_line():
    source = 'x = 1\n\n\ndef f():\n    """A sentence.\n\n    It is held out.\n    """\n'
    assert [row for line, text in strings(source) for row in found(text, line)] == [
        (7, "held out", "validation, or test")
    ]


def test_the_exempt_files_exist():
    assert [path for path in EXEMPT if path != "CHANGELOG.md" and not (ROOT / path).exists()] == []
