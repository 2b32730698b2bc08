"""Pictures and arrays of images, one file per question: what `litevit explain` writes.

Every function takes a `Look` and named image files and returns the files that it wrote.
"""

from litevit.explain.draw.attention import Where as Where
from litevit.explain.draw.attention import draw_attention as draw_attention
from litevit.explain.draw.attention import draw_mean_attention as draw_mean_attention
from litevit.explain.draw.cam import draw_cam as draw_cam
from litevit.explain.draw.errors import draw_errors as draw_errors
from litevit.explain.draw.features import draw_features as draw_features
from litevit.explain.draw.frequency import draw_frequency as draw_frequency
from litevit.explain.draw.offsets import draw_offsets as draw_offsets
