"""Unknown options, unreadable values and missing words were a red box of ten lines for every verb but `train`."""

import pytest

from litevit import cli
from litevit.bench.commands import COMMANDS
from litevit.cli.arguments import _parameters

WORDS = {verb: [verb] for verb in cli.VERBS if not cli.VERBS[verb].raw}
WORDS |= {f"bench {what}": ["bench", what] for what in COMMANDS} | {"train": ["train", "finetune"]}


def one_line(litevit, *words) -> str:
    code, out, said = litevit(*words)
    assert (code, out) == (2, "")
    assert said.startswith("litevit: ")
    assert said.count("\n") == 1, said
    return said


def options(name: str) -> list[str]:
    if name == "train":
        return ["--optim.lr", "--data.image_size", "--run.batch_size"]
    verb, *what = WORDS[name]
    return _parameters(COMMANDS[what[0]] if what else cli.VERBS[verb].load())[0]


@pytest.mark.parametrize("name", WORDS)
def test_an_unknown_option_is_answered_with_a_near_one(name, litevit):
    for option in options(name):
        wrong = f"{option}xx"
        said = one_line(litevit, *WORDS[name], wrong, "3")
        assert f"Unknown option {wrong}. Did you mean --" in said
        assert said == one_line(litevit, *WORDS[name], f"{wrong}=3")
    assert "Unknown option --qqqqqq. --help lists them all." in one_line(litevit, *WORDS[name], "--qqqqqq")


VALUES = {
    "predict photos --top five": ("--top", "five"),
    "predict photos --device gpu": ("--device", "gpu", "cpu"),
    "predict photos --top": ("--top",),
    "eval --limit many": ("--limit", "many"),
    "eval --labels bogus": ("--labels", "bogus", "imagenet"),
    "export litv2_s --format onxx": ("--format", "onxx", "onnx"),
    "bench models --rounds few": ("--rounds", "few"),
    "bench modles": ("Unknown benchmark 'modles'. Did you mean 'models'?",),
    "doctor photos --examples some": ("--examples", "some"),
    "doctor photos --reader csv": ("--reader", "csv", "wds"),
    "explain banana photos": ("banana", "offsets"),
    "app --port x": ("--port", "x"),
    "list --size a": ("--size", "a"),
    "info lvt --size big": ("--size", "big"),
    "pack lvt out --force maybe": ("maybe",),
    "convert a b c": ("c",),
    "reproduce --workers x": ("--workers", "x"),
    "token-labels lvt a b --k x": ("--k", "x"),
    "train quickstart --optim.lr fast": ("--optim.lr", "fast"),
}


@pytest.mark.parametrize("command", VALUES)
def test_a_value_that_cannot_be_read_is_named(command, litevit):
    said = one_line(litevit, *command.split())
    for word in VALUES[command]:
        assert word in said


MISSING = {
    "predict": "Nothing to predict: give image files or folders",
    "explain": "litevit explain needs WHAT",
    "export litv2_s": "litevit export needs MODEL and --format: `litevit export --help` says what they are",
    "pack litv2_s": "litevit pack needs MODEL and FOLDER",
    "convert a": "litevit convert needs SOURCE and TARGET",
    "info": "litevit info needs MODEL",
    "doctor": "litevit doctor needs PATH",
    "token-labels lvt a": "litevit token-labels needs MODEL and DATA and OUT",
}


@pytest.mark.parametrize("command", MISSING)
def test_what_is_missing_is_named(command, litevit):
    assert MISSING[command] in one_line(litevit, *command.split())
