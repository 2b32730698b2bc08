"""Pictures of the four maps."""

from pathlib import Path

from litevit.explain.draw.look import Images, Look, pixel_in, strides_of
from litevit.explain.features import cosine_similarity, feature_maps, principal_components
from litevit.explain.figures import Style, features_figure, save


def draw_features(
    look: Look, images: Images, out: Path, *, pixel: tuple[int, int] | None = None, style: Style | None = None
) -> list[Path]:
    """Principal components of every stage, and likeness to a pixel. Args: pixel: X Y; None takes the middle one."""
    style = style or Style()
    strides = strides_of(look.model)
    written = []
    for name, path in images:
        seen = look.see(path)
        x, y = pixel_in(seen.picture, pixel)
        maps = feature_maps(look.model, seen.batch)
        components = [principal_components(m).numpy() for m in maps]
        likeness = []
        for m, stride in zip(maps, strides):
            row, column = min(y // stride, m.shape[2] - 1), min(x // stride, m.shape[3] - 1)
            likeness.append(cosine_similarity(m, row, column).numpy())
        figure = features_figure(seen.picture, components, likeness, pixel=(x, y), paper=style.paper)
        arrays = {f"pca_{i + 1}": c for i, c in enumerate(components)}
        arrays |= {f"cosine_{i + 1}": c for i, c in enumerate(likeness)}
        written += save(figure, out / f"{name}-features", arrays, style)
    return written
