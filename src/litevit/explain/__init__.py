"""Looking inside models: arrays here, pictures of them in `litevit.explain.figures`, `litevit explain` for both.

Every function leaves the model as it was and never changes what it computes.
"""

from litevit.explain.attention import AttentionMaps as AttentionMaps
from litevit.explain.attention import attention_maps as attention_maps
from litevit.explain.attention import attention_rollout as attention_rollout
from litevit.explain.features import cosine_similarity as cosine_similarity
from litevit.explain.features import feature_maps as feature_maps
from litevit.explain.features import principal_components as principal_components
from litevit.explain.frequency import frequency_magnitude as frequency_magnitude
from litevit.explain.offsets import chain_pixels as chain_pixels
from litevit.explain.offsets import merging_offsets as merging_offsets
from litevit.explain.offsets import sampling_chain as sampling_chain
