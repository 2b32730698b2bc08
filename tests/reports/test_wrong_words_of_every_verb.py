"""Unknown options, unreadable values and missing words were a red box of ten lines for every verb but `train`."""

import pytest

from litevit import cli
from litevit.bench.commands import COMMANDS
from litevit.cli.arguments import parameters

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
    return parameters(COMMANDS[what[0]] if what else cli.VERBS[verb].load())[0]


@pytest.mark.parametrize("name", WORDS)
def test_an_unknown_option_is_answered_with_a_near_one(name, litevit):
    for option in options(name):
        wrong = f"{option}xx"
        said = one_line(litevit, *WORDS[name], wrong, "3")
        assert f"Unknown option {wrong}. Did you mean --" in said
        assert said == one_line(litevit, *WORDS[name], f"{wrong}=3")
    assert "Unknown option --qqqqqq. --help lists them all." in one_line(litevit, *WORDS[name], "--qqqqqq")


VALUES = {
    "predict photos --top five": "--top takes INT or None, got 'five'",
    "predict photos --device gpu": "--device must be one of auto, cpu, cuda, mps, got 'gpu'. Did you mean cpu?",
    "predict photos --top": "--top needs a value",
    "eval --limit many": "--limit must be a whole number, got 'many'",
    "eval --labels rael": "--labels must be one of imagenet, own, real, v2, got 'rael'. Did you mean real?",
    "export litv2_s --format onxx": "tensorrt, got 'onxx'. Did you mean onnx?",
    "bench models --rounds few": "--rounds must be a whole number, got 'few'",
    "bench modelz": "Unknown benchmark 'modelz'. Did you mean 'models'?",
    "doctor photos --examples some": "--examples must be a whole number, got 'some'",
    "doctor photos --reader csv": "--reader must be one of hfds, wds, got 'csv'",
    "explain offsetts photos": "what must be one of offsets, attention, frequency, features, cam, errors, got",
    "app --port x": "--port must be a whole number, got 'x'",
    "list --size a": "--size cannot be read from 'a'",
    "info lvt --size big": "--size cannot be read from 'big'",
    "pack lvt out --force maybe": "Unexpected argument 'maybe'",
    "convert a b c": "Unexpected argument 'c'",
    "bench models lvt": "Unexpected argument 'lvt': litevit bench models takes options alone, such as --models",
    "reproduce --workers x": "--workers must be a whole number, got 'x'",
    "token-labels lvt a b --k x": "--k must be a whole number, got 'x'",
    "train quickstart --optim.lr fast": "--optim.lr must be a number, got 'fast'",
}


@pytest.mark.parametrize("command", VALUES)
def test_a_value_that_cannot_be_read_is_named(command, litevit):
    assert VALUES[command] in one_line(litevit, *command.split())


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
