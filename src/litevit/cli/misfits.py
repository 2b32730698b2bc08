"""What to do about weights that do not fit a model, in the options of a verb."""

from litevit.checkpoints.load import MisfitError

# Verbs with --num-classes and --model; `export`, `pack` and `token-labels` take the model's name first.
TAKES_CLASSES = ("predict", "eval", "export", "pack", "explain", "token-labels")
TAKES_MODEL = ("predict", "explain", "app")


def advice(error: MisfitError, verb: str) -> list[str]:
    """Args: verb: as it is typed. Returns: sentences."""
    said = []
    if error.options:
        classes = error.options.get("num_classes")
        if verb == "train":
            said.append("Give --model.drop_head True: what depends on the classes then starts anew.")
        elif classes is not None and verb in TAKES_CLASSES:
            said.append(f"Give --num-classes {classes}.")
        else:
            same = ", ".join(f"{name} {value}" for name, value in error.options.items())
            said.append(f"The file has {same}: give the folder of its training run, which knows its model.")
    if error.other_system and verb == "train":
        said.append("To start from its backbone alone: --model.drop_head True.")
    if error.fits:
        names = " or ".join(error.fits)
        option = "--model.name" if verb == "train" else "--model" if verb in TAKES_MODEL else "the model's name"
        said.append(f"Its backbone is that of {names} ({option}).")
    return said
